"""Regret of a trace, how fast it grows, and comparisons of paired seeds.

Expected (pseudo) regret sums optimal minus expected reward of the weights that
were played: it holds no reward noise. Realised regret sums optimal minus what
the slots gave. Letters: S seeds, T rounds.
"""

import dataclasses
from typing import NamedTuple

import numpy as np
import scipy.stats

from tanbr_jax.trace import Trace

_CONFIDENCE = 0.95
_FIT_POINTS = 32


class Estimate(NamedTuple):
  """A mean over seeds with its 95 % Student interval.

  Attributes:
    value: the mean, NaN where nothing could be estimated.
    low: lower end; NaN with a single seed.
    high: upper end.
  """

  value: float
  low: float
  high: float


def expected(trace: Trace) -> np.ndarray:
  """Cumulative expected regret, [S, T] float64."""
  gap = trace.optimal_reward.astype(np.float64) - trace.expected_reward
  return np.cumsum(gap, axis=1)


def realised(trace: Trace) -> np.ndarray:
  """Cumulative realised regret, [S, T] float64.

  A slot whose realised reward is not finite adds its expected regret instead.
  """
  finite = np.isfinite(trace.realised_reward)
  reward = np.where(finite, trace.realised_reward, trace.expected_reward)
  return np.cumsum(trace.optimal_reward.astype(np.float64) - reward, axis=1)


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
  for field in ("seeds", "task_mix"):
    mine, theirs = getattr(trace, field), getattr(oracle, field)
    if not np.array_equal(mine, theirs):
      raise ValueError(
        f"trace and oracle must have the same {field}, got shapes "
        f"{mine.shape} and {theirs.shape}, or other values"
      )
  return dataclasses.replace(trace, optimal_reward=oracle.expected_reward)


def mean(values: np.ndarray) -> Estimate:
  """The mean of [S] values over seeds; values that are NaN are left out."""
  values = np.asarray(values, np.float64)
  values = values[np.isfinite(values)]
  if values.size == 0:
    return Estimate(np.nan, np.nan, np.nan)
  centre = float(values.mean())
  if values.size == 1:
    return Estimate(centre, np.nan, np.nan)
  error = values.std(ddof=1) / np.sqrt(values.size)
  quantile = scipy.stats.t.ppf((1 + _CONFIDENCE) / 2, values.size - 1)
  half = float(quantile * error)
  return Estimate(centre, centre - half, centre + half)


def growth_exponent(
  cumulative: np.ndarray, *, first_round: int | None = None
) -> Estimate:
  """The exponent a of R_t ~ t^a, fitted per seed in log-log coordinates.

  Points lie evenly in log t between `first_round` and T, so that every part of
  the range counts alike. sqrt(T) regret has a = 1/2, linear regret a = 1.

  Args:
    cumulative: [S, T] cumulative regret.
    first_round: where the fit starts, counted from 1; the default T/10 is the
      last decade.

  Returns:
    The mean of the seeds' exponents. A seed whose regret is not positive in
    the range (an oracle's) has none and is left out.
  """
  num_rounds = cumulative.shape[1]
  first_round = first_round or max(1, num_rounds // 10)
  if not 1 <= first_round <= num_rounds:
    raise ValueError(
      f"first_round must be in [1, num_rounds], got first_round={first_round}, "
      f"num_rounds={num_rounds}"
    )
  points = np.unique(
    np.geomspace(first_round, num_rounds, _FIT_POINTS).round().astype(int)
  )
  return mean(
    np.asarray([_slope(points, row[points - 1]) for row in cumulative])
  )


def paired_ratio(values: np.ndarray, baseline: np.ndarray) -> Estimate:
  """Geometric mean of values / baseline over paired seeds.

  Args:
    values: [S] positive, say the final regret of a method.
    baseline: [S] positive, that of another method with the same seeds.

  Returns:
    The ratio; the interval is Student's on the logarithms. Pairs in which
    either number is not positive are left out.
  """
  values = np.asarray(values, np.float64)
  baseline = np.asarray(baseline, np.float64)
  if values.shape != baseline.shape:
    raise ValueError(
      "values and baseline must be paired, got shapes "
      f"{values.shape} and {baseline.shape}"
    )
  valid = (values > 0) & (baseline > 0)
  logs = mean(np.log(values[valid]) - np.log(baseline[valid]))
  return Estimate(*(float(np.exp(part)) for part in logs))


def ratio_of_means(values: np.ndarray, baseline: np.ndarray) -> Estimate:
  """Mean of values over mean of baseline, over paired seeds.

  Unlike `paired_ratio` it allows any sign, and a seed whose baseline is near
  zero does no harm.

  Args:
    values: [S].
    baseline: [S], whose mean is not zero.

  Returns:
    The ratio; the interval is Student's on the jackknife's pseudo-values.
  """
  values = np.asarray(values, np.float64)
  baseline = np.asarray(baseline, np.float64)
  num_seeds = values.size
  with np.errstate(divide="ignore", invalid="ignore"):
    whole = float(values.mean() / baseline.mean())
    without = (values.sum() - values) / (baseline.sum() - baseline)
  found = mean(num_seeds * whole - (num_seeds - 1) * without)
  half = found.high - found.value
  return Estimate(whole, whole - half, whole + half)


def _slope(rounds: np.ndarray, regret: np.ndarray) -> float:
  if rounds.size < 2 or (regret <= 0).any():
    return np.nan
  return float(np.polyfit(np.log(rounds), np.log(regret), 1)[0])
