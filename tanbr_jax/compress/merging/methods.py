"""Merges experts by any method of the catalogue, on calibration statistics.

A method says who is merged with whom, whether neurons are aligned first, how
much each expert counts, and what becomes of the matrices. Letters: L layers, E
experts, G groups, V domains, N tokens, D model width, F an expert's hidden
width.
"""

import functools
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from tanbr_jax import moe
from tanbr_jax.compress.merging import assembly, blocks, grouping, rules
from tanbr_jax.compress.merging.catalogue import (
  CATALOGUE,
  ROUTERS,
  Method,
  known,
  merge_needs,
)
from tanbr_jax.compress.merging.grouping import Grouping
from tanbr_jax.compress.merging.weights import group_weights
from tanbr_jax.compress.pruning import prune
from tanbr_jax.compress.scores import score
from tanbr_jax.compress.statistics import CalibrationStatistics, total
from tanbr_jax.models.alignment import (
  NEURON_AXES,
  neuron_orders,
  reorder_neurons,
)
from tanbr_jax.models.base import Model, Params

Statistics = CalibrationStatistics | Mapping[str, CalibrationStatistics]


def merge_experts(
  method: str,
  model: Model,
  params: Params,
  statistics: Statistics | Callable[[Model, Params], Statistics],
  *,
  num_groups: int = 1,
  groups: str | np.ndarray | None = None,
  align: bool | None = None,
  router: str = "routes",
  on_layer: Callable[[], object] = lambda: None,
  **options: Any,
) -> tuple[Model, Params]:
  """Merges every layer's experts into one block, or into G experts.

  `MERGES[method]` is this function with its first argument bound.

  A model of G experts keeps its routers. Each token still chooses among the E,
  by the routers' own gates; those of experts that became one add up
  (`moe.Routes`). With router="centres" a router keeps the outputs of the
  groups' centres alone, as REAM's do: tokens choose otherwise, but the model is
  a smaller one of its family, which `save_pretrained` writes.

  Args:
    method: a key of `CATALOGUE`.
    model: a model with experts.
    params: its parameters.
    statistics: of calibration text, with what `merge_needs` says; or of each
      domain by name, which "task_mix" needs and others add up. Or a function
      of a model and its parameters that takes them: it is called for every
      layer in turn, on the model whose earlier layers have copies of their
      merged experts, as REAM and RegMean++ (2025) do. [R] for one block: the
      copies keep the gates, the block has none.
    num_groups: G: 1 makes the dense model, more at least `num_selected` and
      fewer than E.
    groups: a key of `GROUPINGS`, or labels [L, E] in [0, G); None for the
      method's own.
    align: whether each expert's neurons are put in the order of its group's
      centre first; None for what the method does.
    router: one of `ROUTERS`, for several groups.
    on_layer: called after every layer.
    **options: of the method. task_mix: share of each domain by name.
      shrinkage: of RegMean's off-diagonals, 0.9. max_group_size: of REAM, 16.
      rank_share and seed (of the clusters' starts): of Sub-MoE, 1 and 0.

  Returns:
    The merged model and its parameters.

  Raises:
    ValueError: before any layer is merged, if a name, an option or a number is
      none that can be, the statistics are of another model, or they lack what
      the method needs.
  """
  found = CATALOGUE[known("method", method, CATALOGUE)]
  known("router", router, ROUTERS)
  stacks = assembly.stacks_of(model, params)
  _check_groups(model, num_groups, groups, len(stacks))
  if unknown := sorted(set(options) - set(found.options)):
    raise ValueError(
      f"{method} takes the options {found.options}, got {unknown[0]}="
      f"{options[unknown[0]]!r}"
    )
  needs = merge_needs(method, num_groups=num_groups, groups=groups)

  def read(given: Statistics) -> _Seen:
    for one in given.values() if isinstance(given, Mapping) else (given,):
      one.check_model(model, params)
      for need in needs:
        one.need(need, method=method)
    whole = total(given.values()) if isinstance(given, Mapping) else given
    return _Seen(whole, _worth(found, given, whole, options))

  merged, labels, centres = [], [], []
  seen = None if callable(statistics) else read(statistics)
  for layer, stack in enumerate(stacks):
    if callable(statistics):
      # The layers before have copies of what they were merged to.
      copies = [
        moe.take_experts(one, label)
        for one, label in zip(merged, labels, strict=True)
      ]
      now = assembly.replace_stacks(model, params, copies + stacks[layer:])
      seen = read(statistics(model, now))
    one, grouped = _merge_layer(
      found, stack, seen, layer, num_groups, groups, align, options
    )
    merged.append(one)
    labels.append(grouped.labels)
    centres.append(grouped.centres)
    on_layer()
  if num_groups == 1:
    return assembly.dense(model, params, merged)
  if router == "routes":
    return assembly.grouped(model, params, merged, labels)
  smaller, kept = prune(model, params, centres)
  return smaller, assembly.replace_stacks(smaller, kept, merged)


class _Seen(NamedTuple):
  """What a method is told.

  Attributes:
    statistics: of all text.
    worth: [L, E], what the method weights experts by.
  """

  statistics: CalibrationStatistics
  worth: np.ndarray


def _worth(
  method: Method,
  given: Statistics,
  whole: CalibrationStatistics,
  options: Mapping[str, Any],
) -> np.ndarray:
  if method.weights == "task_mix":
    return _mixed_use(given, options.get("task_mix"))
  if method.weights == "equal":
    return np.ones(whole.num_pairs.shape)
  if method.weights == "frequency":
    return np.asarray(whole.num_pairs, np.float64)
  return score("reap", whole)


def _mixed_use(statistics: Statistics, task_mix: Any) -> np.ndarray:
  """The use of every expert, averaged over domains by the mix."""
  if not isinstance(statistics, Mapping):
    raise ValueError(
      "task_mix needs the statistics of each domain by name, got those of one"
    )
  if (
    not isinstance(task_mix, Mapping)
    or set(task_mix) != set(statistics)
    or not all(0 <= share <= 1 for share in task_mix.values())
    # As loose as shares of three decimals are.
    or abs(sum(task_mix.values()) - 1) > 1e-3 * len(task_mix)
  ):
    raise ValueError(
      "task_mix must be shares that sum to 1 of the domains "
      f"{sorted(statistics)}, got task_mix={task_mix}"
    )
  use = 0.0
  for name, share in task_mix.items():
    pairs = np.asarray(statistics[name].num_pairs, np.float64)
    use = use + share * pairs / np.maximum(pairs.sum(axis=1, keepdims=True), 1)
  return use


def _merge_layer(
  method: Method,
  stack: moe.Experts,
  seen: _Seen,
  layer: int,
  num_groups: int,
  groups: str | np.ndarray | None,
  align: bool | None,
  options: Mapping[str, Any],
) -> tuple[moe.Experts, Grouping]:
  """A layer's G experts, and who became which of them."""
  found, worth = seen.statistics, seen.worth[layer]
  rule = method.grouping if groups is None else groups
  use = np.asarray(found.num_pairs[layer], np.float64)
  if num_groups == 1:
    # The centre is the expert of most weight, or of most tokens.
    best = worth if method.weights == "reap" else use
    grouped = grouping.of_labels(np.zeros(len(use), int), best)
  else:
    grouped = rules.group(rule, found, layer, num_groups, use, options)
  orders = None
  if method.is_aligned if align is None else align:
    units = None
    if method.grouping == "ream":
      units = blocks.hidden_units(stack, found.sample_inputs[layer])
    centres = grouped.centres[grouped.labels]
    orders = neuron_orders(stack, centres, activations=units)
    stack = reorder_neurons(stack, orders)
  weights = group_weights(worth, grouped.labels)
  merge = getattr(blocks, method.blocks)
  given = _given(method.blocks, found, layer, orders)
  given |= {k: v for k, v in options.items() if k in _OF_BLOCKS}
  return merge(stack, weights, **given), grouped


# Options that go to the function of `blocks`; others are of the grouping.
_OF_BLOCKS = ("shrinkage", "rank_share")


def _given(
  merge: str,
  statistics: CalibrationStatistics,
  layer: int,
  orders: np.ndarray | None,
) -> dict[str, Any]:
  """The statistics that a function of `blocks` takes, in the neurons' order."""

  def ordered(array: np.ndarray, *axes: int) -> np.ndarray:
    if orders is None:
      return array
    return np.stack(
      [
        functools.reduce(
          lambda one, axis, order=order: np.take(one, order, axis), axes, own
        )
        for own, order in zip(array, orders, strict=True)
      ]
    )

  if merge == "fisher":
    return {
      "squared_gradients": {
        name: ordered(
          array[layer], *((NEURON_AXES[name],) if name in NEURON_AXES else ())
        )
        for name, array in statistics.squared_gradients.items()
      }
    }
  if merge == "reg_mean":
    return {
      "input_moments": statistics.input_moments[layer],
      "hidden_moments": ordered(statistics.hidden_moments[layer], 0, 1),
    }
  if merge == "zip_it":
    return {"inputs": statistics.sample_inputs[layer]}
  if merge == "merge_moe":
    logits = statistics.sample_logits[layer]
    chosen = np.argsort(-logits, axis=1)[:, : statistics.num_selected]
    is_chosen = np.zeros(logits.shape, bool)
    np.put_along_axis(is_chosen, chosen, True, axis=1)
    return {"inputs": statistics.sample_inputs[layer], "is_chosen": is_chosen}
  return {}


def _check_groups(
  model: Model, num_groups: int, groups: Any, num_layers: int
) -> None:
  num_experts, num_selected = (
    model.config.num_experts,
    model.config.num_selected,
  )
  fewest = max(2, num_selected)
  if num_groups != 1 and not fewest <= num_groups < num_experts:
    raise ValueError(
      f"num_groups must be 1 or in [{fewest}, {num_experts}): at least as many "
      f"as a token chooses and fewer than experts, got num_groups={num_groups}"
    )
  if groups is None or isinstance(groups, str):
    return
  labels = np.asarray(groups)
  if labels.shape != (num_layers, num_experts) or any(
    sorted(set(row)) != list(range(num_groups)) for row in labels.tolist()
  ):
    raise ValueError(
      f"groups must be a name, or labels [L, E] = ({num_layers}, "
      f"{num_experts}) with every one of {num_groups} groups in each layer, "
      f"got {labels.tolist()}"
    )


MERGES: Mapping[str, Callable[..., tuple[Model, Params]]] = MappingProxyType(
  {name: functools.partial(merge_experts, name) for name in CATALOGUE}
)
