"""The ways to choose experts that the study compares.

Letters: L layers, E experts, V domains, M experts kept in a layer.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from tanbr_jax import compress, models
from tanbr_jax.compress import ranking
from tanbr_jax.compress.ranking import Selection

Statistics = Sequence[compress.CalibrationStatistics]


class Method(NamedTuple):
  """A score, its options and how it is ranked.

  Attributes:
    score: a name of `compress.SCORES`; "" for the enumeration of all sets.
    options: of the score.
    is_global: whether all layers share one ranking, so that they keep different
      numbers of experts.
  """

  score: str
  options: Mapping[str, Any] = MappingProxyType({})
  is_global: bool = False


METHODS: Mapping[str, Method] = MappingProxyType(
  {
    "peu": Method("peu"),
    # PEU's parts; f(s) = s without a threshold is act_logits.
    "peu_no_transform": Method("peu", {"transform": "identity"}),
    "peu_no_threshold": Method("peu", {"threshold": None}),
    "peu_sigmoid": Method("peu", {"transform": "sigmoid"}),
    "peu_exp": Method("peu", {"transform": "exp"}),
    "act_logits": Method("act_logits"),
    "all_logits": Method("all_logits"),
    "frequency": Method("frequency"),
    "frequency_global": Method("frequency", is_global=True),
    "weighted_frequency": Method("weighted_frequency"),
    "seer_soft": Method("seer_soft"),
    "seer_soft_global": Method("seer_soft", is_global=True),
    "ean": Method("ean"),
    "reap": Method("reap"),
    "easy_ep": Method("easy_ep"),
    "leave_one_out": Method("leave_one_out"),
    "enumeration": Method(""),
    "random": Method("random"),
  }
)
# Of these the ones that rank experts one by one.
SCORED = tuple(name for name, method in METHODS.items() if method.score)
MAX_SETS = 1000  # of the enumeration, a layer


def needs(methods: Sequence[str]) -> tuple[str, ...]:
  """What calibration has to look at."""
  found = {"peu"}
  for name in methods:
    score = METHODS[name].score
    found |= set(compress.SCORES[score].needs) if score else {"samples"}
  return tuple(sorted(found))


def scores(
  name: str, statistics: Statistics, *, pooling: str, seed: int
) -> np.ndarray:
  """[L, E] of one domain's statistics, or of several pooled.

  Args:
    name: of `SCORED`.
    statistics: of one domain or more.
    pooling: of `compress.generalist`, for more.
    seed: of the random one.
  """
  method = METHODS[name]
  options = dict(method.options)
  if method.score == "random":
    # Another order for each domain and seed.
    words = "/".join(n for one in statistics for n, _ in one.domains)
    options["seed"] = seed * 7919 + sum(map(ord, words))
  if len(statistics) == 1:
    return compress.score(method.score, statistics[0], **options)
  return compress.generalist(
    method.score, statistics, pooling=pooling, **options
  )


def select(
  name: str,
  model: models.Model,
  params: models.Params,
  statistics: Statistics,
  num_kept: int,
  *,
  pooling: str = "tokens",
  seed: int = 0,
) -> Selection:
  """The experts that a method keeps.

  Args:
    name: of `METHODS`.
    model: that was calibrated.
    params: its parameters.
    statistics: of one domain for a specialist, of all for a generalist.
    num_kept: M.
    pooling: of several domains.
    seed: of the random one.
  """
  method = METHODS[name]
  if not method.score:
    return compress.enumerate_keep(
      model, params, compress.total(statistics), num_kept, max_sets=MAX_SETS
    )
  found = scores(name, statistics, pooling=pooling, seed=seed)
  if method.is_global:
    return compress.keep_global(
      found, num_kept, at_least=model.config.num_selected
    )
  return compress.keep_local(found, num_kept)


def union(found: Sequence[np.ndarray], num_kept: int) -> Selection:
  """The union of every domain's m best, m as large as the budget allows.

  Args:
    found: [L, E] scores of each domain.
    num_kept: M, which the layers' mean number of experts does not exceed.
  """
  chosen = None
  for count in range(1, num_kept + 1):
    keep = compress.union([compress.keep_local(one, count) for one in found])
    if np.mean([len(ids) for ids in keep]) > num_kept:
      break
    chosen = keep
  return chosen if chosen is not None else keep


def with_at_least(
  keep: Selection, order: np.ndarray, at_least: int
) -> Selection:
  """A selection in which no layer has too few experts to run."""
  mask = ranking.to_mask(keep, order.shape[1])
  for row, best in zip(mask, order, strict=True):
    for expert in best:
      if row.sum() >= at_least:
        break
      row[expert] = True
  return ranking.from_mask(mask)
