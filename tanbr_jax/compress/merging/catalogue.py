"""The merging methods by name: what each is made of, and what it needs.

Letters: G groups.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

ROUTERS = ("routes", "centres")


class Method(NamedTuple):
  """The parts of a merging method.

  Attributes:
    source: authors of the paper, or what else it is.
    grouping: the key of `GROUPINGS` that it uses for several groups.
    weights: the key of `WEIGHTS`, what experts are weighted by.
    blocks: the function of `blocks` that merges, by name.
    is_aligned: whether neurons are aligned, unless the caller says otherwise.
    options: names of its own options.
    needs: of `calibrate`, besides those of the grouping and the weights.
  """

  source: str
  grouping: str = "mean_output"
  weights: str = "frequency"
  blocks: str = "average"
  is_aligned: bool = False
  options: tuple[str, ...] = ()
  needs: tuple[str, ...] = ()


CATALOGUE: Mapping[str, Method] = MappingProxyType(
  {
    "average": Method("equal shares", weights="equal"),
    "frequency": Method("shares by use"),
    "task_mix": Method(
      "use in each domain, by a mix", weights="task_mix", options=("task_mix",)
    ),
    "fisher": Method(
      "Matena, Raffel, 2022", blocks="fisher", needs=("gradients",)
    ),
    "reg_mean": Method(
      "Jin et al., 2023",
      blocks="reg_mean",
      options=("shrinkage",),
      needs=("inputs", "activations"),
    ),
    "m_smoe": Method(
      "Li et al., 2024", grouping="router_logits", is_aligned=True
    ),
    "hc_smoe": Method("Chen et al., 2024"),
    "ream": Method(
      "Jha et al., 2026",
      grouping="ream",
      weights="reap",
      is_aligned=True,
      options=("max_group_size",),
      needs=("samples",),
    ),
    "sub_moe": Method(
      "Li et al., 2025",
      grouping="output_direction",
      blocks="sub_moe",
      options=("rank_share", "seed"),
    ),
    "merge_moe": Method(
      "arXiv 2510.14436, 2025", blocks="merge_moe", needs=("samples",)
    ),
    "zip_it": Method(
      "Stoica et al., 2024",
      weights="equal",
      blocks="zip_it",
      needs=("samples",),
    ),
    "namex": Method("Nguyen et al., 2025", weights="equal", blocks="namex"),
  }
)
# What experts are weighted by, and what that needs of `calibrate`.
WEIGHTS: Mapping[str, tuple[str, ...]] = MappingProxyType(
  {"equal": (), "frequency": (), "task_mix": (), "reap": ("outputs",)}
)
# Who is merged with whom, and what that needs of `calibrate`.
GROUPINGS: Mapping[str, tuple[str, ...]] = MappingProxyType(
  {
    "mean_output": ("all_outputs",),
    "output_direction": ("all_outputs",),
    "router_logits": ("profiles",),
    "ream": ("profiles", "outputs"),
  }
)


def merge_needs(
  method: str, *, num_groups: int = 1, groups: Any = None
) -> tuple[str, ...]:
  """What `calibrate` has to be asked for, for a method of `MERGES`.

  Args:
    method: a key of `MERGES`.
    num_groups: G.
    groups: as for the method; what is given needs no statistics.
  """
  found = CATALOGUE[method]
  rule = found.grouping if groups is None else groups
  by_rule = ()
  if num_groups > 1 and isinstance(rule, str):
    by_rule = GROUPINGS[known("groups", rule, GROUPINGS)]
  needs = (*found.needs, *WEIGHTS[found.weights], *by_rule)
  return tuple(dict.fromkeys(needs))


def known(kind: str, name: Any, names: Sequence[str] | Mapping) -> str:
  """Returns a name, or raises a ValueError that says what there is."""
  if name not in names:
    raise ValueError(f"{kind} must be one of {tuple(names)}, got {name!r}")
  return name
