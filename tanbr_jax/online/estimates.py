"""Means over seeds and comparisons of paired seeds, with 95 % intervals.

Letters: S seeds.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy import special

_CONFIDENCE = 0.95


class Estimate(NamedTuple):
  """A figure over seeds with its 95 % interval.

  Attributes:
    value: the estimate, NaN where nothing could be estimated.
    low: lower end; NaN with a single seed.
    high: upper end.
  """

  value: float
  low: float
  high: float


def mean(values: np.ndarray) -> Estimate:
  """The mean of [S] values over seeds, with Student's interval.

  Values that are not finite are left out.
  """
  values = np.asarray(values, np.float64)
  values = values[np.isfinite(values)]
  if values.size == 0:
    return Estimate(np.nan, np.nan, np.nan)
  centre = float(values.mean())
  if values.size == 1:
    return Estimate(centre, np.nan, np.nan)
  error = values.std(ddof=1) / np.sqrt(values.size)
  quantile = special.stdtrit(values.size - 1, (1 + _CONFIDENCE) / 2)
  half = float(quantile * error)
  return Estimate(centre, centre - half, centre + half)


def bootstrap(
  values: np.ndarray,
  statistic: Callable[[np.ndarray], float],
  *,
  num_resamples: int = 2000,
  seed: int = 0,
) -> Estimate:
  """Any statistic of the seeds, with the bootstrap's percentile interval.

  Seeds are drawn anew with replacement, each with all that belongs to it
  (Efron and Tibshirani 1993, chapter 13). Percentiles rather than BCa: those
  exist when all seeds agree, too. With few seeds the interval is too short:
  it held the mean of 16 normal seeds in 92 of 100 cases, and that of 16
  lognormal ones (sigma 1/2) in 89 (BCa: 92 and 89).

  Args:
    values: [S, ...], a row a seed.
    statistic: of [S, ...] to a number.
    num_resamples: how often seeds are drawn.
    seed: of those draws; the same arguments give the same interval.

  Returns:
    The statistic of all seeds; its interval is NaN with a single seed, and all
    of it with none.

  Raises:
    ValueError: if `num_resamples` is below 1.
  """
  if num_resamples < 1:
    raise ValueError(
      f"num_resamples must be at least 1, got num_resamples={num_resamples}"
    )
  values = np.asarray(values, np.float64)
  if values.shape[0] == 0:
    return Estimate(np.nan, np.nan, np.nan)
  whole = float(statistic(values))
  if values.shape[0] == 1:
    return Estimate(whole, np.nan, np.nan)
  num_seeds = values.shape[0]
  rng = np.random.default_rng(seed)
  drawn = rng.integers(num_seeds, size=(num_resamples, num_seeds))
  found = [statistic(values[rows]) for rows in drawn]
  low, high = np.quantile(found, [(1 - _CONFIDENCE) / 2, (1 + _CONFIDENCE) / 2])
  return Estimate(whole, float(low), float(high))


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
