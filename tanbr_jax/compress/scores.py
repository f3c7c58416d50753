"""Scores of experts: functions of calibration statistics, larger is worth more.

Letters as in `compress.statistics`. An expert that no token chose has score 0
in all of them but "random", "all_logits", "seer_soft" and "leave_one_out"; on
text without a token all scores are 0.
"""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from tanbr_jax.compress.expert_utility import Threshold
from tanbr_jax.compress.statistics import (
  TRANSFORMS,
  CalibrationStatistics,
  total,
)
from tanbr_jax.moe.parameters import is_integer

POOLINGS = ("tokens", "domains")


class Score(NamedTuple):
  """A registered score.

  Attributes:
    function: of statistics, with options by keyword; returns [L, E] float64.
    needs: what it needs of `calibrate`, keys of `statistics.NEEDS`.
    source: where it comes from.
  """

  function: Callable[..., np.ndarray]
  needs: tuple[str, ...]
  source: str

  def __call__(
    self, statistics: CalibrationStatistics, **options: object
  ) -> np.ndarray:
    """The scores [L, E].

    Raises:
      ValueError: if the statistics lack what is needed, or an option is wrong.
    """
    for need in self.needs:
      statistics.need(need, method=self.function.__name__)
    return self.function(statistics, **options)


def random(statistics: CalibrationStatistics, *, seed: int = 0) -> np.ndarray:
  """Numbers that say nothing, uniform in [0, 1).

  Args:
    statistics: of which only the shape is read.
    seed: of NumPy's generator.

  Raises:
    ValueError: if the seed is no integer of at least 0.
  """
  if not is_integer(seed) or seed < 0:
    raise ValueError(f"seed must be an integer of at least 0, got seed={seed}")
  scores = np.random.default_rng(seed).random(statistics.num_pairs.shape)
  return scores * bool(statistics.num_tokens)


def frequency(statistics: CalibrationStatistics) -> np.ndarray:
  """|X_e| / N, which is SEER-MoE's hard count too."""
  return _mean(statistics, statistics.num_pairs)


def weighted_frequency(statistics: CalibrationStatistics) -> np.ndarray:
  """Sum over X_e of g, over N."""
  return _mean(statistics, statistics.gates)


def all_logits(statistics: CalibrationStatistics) -> np.ndarray:
  """The mean logit over all tokens."""
  return _mean(statistics, statistics.logits)


def act_logits(statistics: CalibrationStatistics) -> np.ndarray:
  """The sum of the logit over the tokens with e in A(x), over N."""
  return _mean(statistics, statistics.selected_logits)


def seer_soft(statistics: CalibrationStatistics) -> np.ndarray:
  """The mean router probability over all tokens."""
  return _mean(statistics, statistics.probability)


def ean(statistics: CalibrationStatistics) -> np.ndarray:
  """Sum over X_e of |f_e|, over N."""
  return _mean(statistics, statistics.output_norms)


def reap(
  statistics: CalibrationStatistics, *, super_experts: bool = False
) -> np.ndarray:
  """Mean over X_e of g |f_e|, with gates that sum to 1 for each token.

  Args:
    statistics: with "outputs".
    super_experts: whether experts with outputs of unusual size are kept in any
      case: those whose largest output is above the 99.5th percentile of all
      and above a tenth of the largest, in the first three quarters of the
      layers. They score infinity.
  """
  count = np.maximum(statistics.num_pairs, 1)
  scores = statistics.normalised_gated_norms / count
  if super_experts:
    scores = np.where(find_super_experts(statistics), np.inf, scores)
  return scores


def find_super_experts(statistics: CalibrationStatistics) -> np.ndarray:
  """[L, E] bool, which experts REAP's option keeps."""
  statistics.need("outputs", method="super_experts")
  largest = statistics.largest_output
  bar = max(np.percentile(largest, 99.5), largest.max() / 10)
  is_early = np.arange(len(largest)) < 0.75 * len(largest)
  return (largest > bar) & is_early[:, None]


def easy_ep(statistics: CalibrationStatistics) -> np.ndarray:
  """Mean over tokens of g |f_e| max(0, 1 - cos(before, after the experts)).

  Domains are pooled by "domains": every domain's scores sum to 1 there.
  """
  if np.isnan(statistics.easy_ep).any():
    raise ValueError(
      "easy_ep needs the residual stream, which this model does not tell"
    )
  return _mean(statistics, statistics.easy_ep)


def leave_one_out(statistics: CalibrationStatistics) -> np.ndarray:
  """The mean squared change of the layer's output without the expert.

  Tokens of the expert go to the next one of their router's choice, as they do
  once it is pruned. Exact, and E times as slow as a forward pass.
  """
  return _mean(statistics, statistics.leave_one_out)


def peu(
  statistics: CalibrationStatistics,
  *,
  transform: str = "max_sigmoid",
  threshold: Threshold = "mean",
) -> np.ndarray:
  """Predicted Expert Utility, see `compress.expert_utility`.

  Args:
    statistics: with "peu".
    transform: one of `statistics.TRANSFORMS`.
    threshold: one of the statistics' thresholds.

  Raises:
    ValueError: if an option is none of them.
  """
  if transform not in TRANSFORMS:
    raise ValueError(
      f"transform must be one of {TRANSFORMS}, got transform={transform!r}"
    )
  if threshold not in statistics.thresholds:
    raise ValueError(
      f"threshold must be one of {statistics.thresholds}, which were asked of "
      f"calibrate, got threshold={threshold!r}"
    )
  place = statistics.thresholds.index(threshold)
  sums = statistics.peu[place, TRANSFORMS.index(transform)]
  return _mean(statistics, sums)


def _mean(statistics: CalibrationStatistics, sums: np.ndarray) -> np.ndarray:
  return sums / max(1, statistics.num_tokens)


_SEER = "SEER-MoE (arXiv 2404.05089)"
_REAP = "REAP (arXiv 2510.13999)"
_PREMOE = "PreMoE (arXiv 2505.17639)"
SCORES: Mapping[str, Score] = MappingProxyType(
  {
    "peu": Score(peu, ("peu",), _PREMOE),
    "random": Score(random, (), "a control"),
    "frequency": Score(frequency, (), _SEER),
    "weighted_frequency": Score(weighted_frequency, (), _REAP),
    "all_logits": Score(all_logits, (), _PREMOE),
    "act_logits": Score(act_logits, ("peu",), _PREMOE),
    "seer_soft": Score(seer_soft, (), _SEER),
    "ean": Score(ean, ("outputs",), _REAP),
    "reap": Score(reap, ("outputs",), _REAP),
    "easy_ep": Score(easy_ep, ("outputs",), "EASY-EP (arXiv 2504.06792)"),
    "leave_one_out": Score(
      leave_one_out, ("leave_one_out",), "the layer's own error"
    ),
  }
)


def score(
  name: str, statistics: CalibrationStatistics, **options: object
) -> np.ndarray:
  """The scores [L, E] of a registered name.

  Raises:
    ValueError: if there is none of that name, or as the score itself.
  """
  if name not in SCORES:
    raise ValueError(f"score must be one of {tuple(SCORES)}, got {name!r}")
  return SCORES[name](statistics, **options)


def generalist(
  name: str,
  domains: Sequence[CalibrationStatistics],
  *,
  pooling: str = "tokens",
  **options: object,
) -> np.ndarray:
  """The scores [L, E] of several domains together.

  Args:
    name: of `SCORES`.
    domains: statistics of each.
    pooling: "tokens": those of the added statistics, in which domains weigh by
      their tokens (PreMoE); or "domains": the mean of every domain's scores,
      scaled to an absolute sum of 1 in each layer (EASY-EP).
    **options: of the score.

  Raises:
    ValueError: if there is no domain, the pooling is unknown or as `score`.
  """
  if pooling not in POOLINGS:
    raise ValueError(
      f"pooling must be one of {POOLINGS}, got pooling={pooling!r}"
    )
  added = total(domains)  # refuses what does not belong together
  if pooling == "tokens":
    return score(name, added, **options)
  found = [score(name, one, **options) for one in domains]
  sums = [np.abs(one).sum(axis=1, keepdims=True) for one in found]
  # A domain without tokens has zeros.
  scaled = [
    one / np.where(size > 0, size, 1)
    for one, size in zip(found, sums, strict=True)
  ]
  return np.mean(scaled, axis=0)
