"""Regret of a trace, how fast it grows, and what else it tells of learning.

Expected (pseudo) regret sums optimal minus expected reward of the weights that
were played: it holds no reward noise. Realised regret sums optimal minus what
the slots gave. Letters: S seeds, T rounds.
"""

import dataclasses
from collections.abc import Iterable

import numpy as np

from tanbr_jax.online.estimates import Estimate, bootstrap
from tanbr_jax.online.trace import Trace

_FIT_POINTS = 32


def expected(trace: Trace) -> np.ndarray:
  """Cumulative expected regret, [S, T] float64."""
  return np.cumsum(simple(trace), axis=1)


def realised(trace: Trace) -> np.ndarray:
  """Cumulative realised regret, [S, T] float64.

  A slot whose realised reward is not finite adds its expected regret instead.
  """
  finite = np.isfinite(trace.realised_reward)
  reward = np.where(finite, trace.realised_reward, trace.expected_reward)
  return np.cumsum(trace.optimal_reward.astype(np.float64) - reward, axis=1)


def simple(trace: Trace) -> np.ndarray:
  """Simple regret: the gap of each round's recommendation, [S, T] float64.

  The recommendation after t - 1 rounds is what the method plays in round t
  [R], under the mix of that round (Bubeck, Munos and Stoltz 2009, "Pure
  exploration in multi-armed bandits problems", leave the recommendation to the
  forecaster). It thus holds what is still explored; the best decision so far
  would not, but means nothing under a mix that moves.
  """
  return trace.optimal_reward.astype(np.float64) - trace.expected_reward


def over_root(cumulative: np.ndarray) -> np.ndarray:
  """R_t / sqrt(t) of [S, T] cumulative regret: flat is the square root law."""
  return cumulative / np.sqrt(np.arange(1, cumulative.shape[1] + 1))


def against(trace: Trace, oracle: Trace) -> Trace:
  """The trace with an oracle's run on the same slots as its optimum.

  For environments whose best reward is only known by serving the same requests
  with the best weights, such as `moe_slots` with `paired=False`.

  Args:
    trace: of any method.
    oracle: of the oracle, with the same seeds in the same environment.

  Returns:
    `trace` with the oracle's `expected_reward` as its `optimal_reward`.

  Raises:
    ValueError: if the runs did not serve the same slots.
  """
  # Two programs round a mix differently in its last bits, on a GPU at least.
  for field, tolerance in (("seeds", 0), ("task_mix", 1e-4)):
    mine, theirs = getattr(trace, field), getattr(oracle, field)
    if mine.shape != theirs.shape or not np.allclose(
      mine, theirs, rtol=0, atol=tolerance
    ):
      raise ValueError(
        f"trace and oracle must have the same {field}, got shapes "
        f"{mine.shape} and {theirs.shape}, or other values"
      )
  return dataclasses.replace(trace, optimal_reward=oracle.expected_reward)


def reward_range(traces: Iterable[Trace]) -> np.ndarray:
  """The rewards' range per seed, [S] float64: the scale of a gap.

  Args:
    traces: all methods on one stream, with the same seeds. A method that plays
      badly makes the range wide; one that plays at random is enough for that.

  Returns:
    The largest optimal less the least expected reward of any method and round.
  """
  best, worst = -np.inf, np.inf
  for trace in traces:
    best = np.maximum(best, trace.optimal_reward.max(axis=1))
    worst = np.minimum(worst, trace.expected_reward.min(axis=1))
  return np.asarray(best, np.float64) - worst


def optimal_play(
  trace: Trace, *, scale: np.ndarray | None = None, tolerance: float = 0.01
) -> np.ndarray:
  """Rounds whose gap is at most `tolerance * scale`, [S, T] bool.

  On a continuum no decision is exactly optimal, hence the tolerance [R].

  Args:
    trace: of any method.
    scale: [S], the stream's `reward_range`; None for that of this trace alone,
      which cannot be compared with another method's.
    tolerance: share of the scale, not negative.

  Raises:
    ValueError: if `tolerance` is negative.
  """
  if not tolerance >= 0:
    raise ValueError(
      f"tolerance must not be negative, got tolerance={tolerance}"
    )
  scale = reward_range([trace]) if scale is None else np.asarray(scale)
  return simple(trace) <= tolerance * scale[:, None]


def model_error(trace: Trace) -> np.ndarray | None:
  """|predicted - expected reward| of the played weights, [S, T] float64.

  None for a method that does not report `predicted_reward` in its decision's
  aux. With an estimated mix it holds the error of the mix besides.
  """
  if "predicted_reward" not in trace.aux:
    return None
  predicted = trace.aux["predicted_reward"].astype(np.float64)
  return np.abs(predicted - trace.expected_reward)


def exploration_bonus(trace: Trace) -> np.ndarray | None:
  """|bonus| of the played weights, [S, T] float64, in units of reward.

  None for a method that does not report `exploration_bonus`. The size is taken
  because the draw of a Thompson sampler has a sign.
  """
  if "exploration_bonus" not in trace.aux:
    return None
  return np.abs(trace.aux["exploration_bonus"].astype(np.float64))


def growth_exponent(
  cumulative: np.ndarray, *, first_round: int | None = None
) -> Estimate:
  """The exponent a of R_t ~ t^a, fitted per seed in log-log coordinates.

  Least squares of log R_t on log t, over points that lie evenly in log t
  between `first_round` and T, so that every part of the range counts alike.
  sqrt(T) regret has a = 1/2, linear regret a = 1. Fitting each seed and
  averaging, rather than fitting the mean curve, counts an unlucky seed as one
  seed, however large its regret.

  Args:
    cumulative: [S, T] cumulative regret.
    first_round: where the fit starts, counted from 1; the default T/10 is the
      last decade.

  Returns:
    The mean of the seeds' exponents, with the bootstrap's interval over seeds
    (see `estimates.bootstrap`). A seed whose regret is not positive in the
    range (an oracle's) has none and is left out.

  Raises:
    ValueError: if `first_round` is not one of the rounds.
  """
  num_rounds = cumulative.shape[1]
  if first_round is None:
    first_round = max(1, num_rounds // 10)
  if not 1 <= first_round <= num_rounds:
    raise ValueError(
      f"first_round must be in [1, num_rounds], got first_round={first_round}, "
      f"num_rounds={num_rounds}"
    )
  points = np.unique(
    np.geomspace(first_round, num_rounds, _FIT_POINTS).round().astype(int)
  )
  slopes = np.asarray([_slope(points, row[points - 1]) for row in cumulative])
  return bootstrap(slopes[np.isfinite(slopes)], np.mean)


def _slope(rounds: np.ndarray, regret: np.ndarray) -> float:
  if rounds.size < 2 or not (regret > 0).all():
    return np.nan
  return float(np.polyfit(np.log(rounds), np.log(regret), 1)[0])
