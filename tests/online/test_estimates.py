import numpy as np
import pytest
import scipy.stats

from tanbr_jax.online import estimates


def test_student_interval():
  # Mean 3, s = 1 and n = 3: half = t(.975, 2) / sqrt(3) = 4.302653 / 1.732051.
  found = estimates.mean(np.asarray([2.0, 3.0, 4.0, np.nan]))
  np.testing.assert_allclose(
    found, [3.0, 3 - 2.484138, 3 + 2.484138], rtol=1e-6
  )


def test_paired_ratio():
  found = estimates.paired_ratio([1.0, 8.0, 5.0], [2.0, 4.0, 0.0])
  # Logs are -ln 2 and ln 2: mean 0, s = sqrt 2 ln 2, half = 12.7062 ln 2.
  high = np.exp(12.706205 * np.log(2))
  np.testing.assert_allclose(found, [1.0, 1 / high, high], rtol=1e-5)
  with pytest.raises(ValueError, match=r"\(1,\) and \(2,\)"):
    estimates.paired_ratio([1.0], [1.0, 2.0])


def test_ratio_of_means():
  # Equal baselines: the ratio is a plain mean, and so is its interval.
  values = np.asarray([1.0, 2.0, 6.0])
  found = estimates.ratio_of_means(values, np.full(3, 2.0))
  np.testing.assert_allclose(found, estimates.mean(values / 2))
  # Means 2 and 4; a seed whose baseline is zero does no harm.
  found = estimates.ratio_of_means([-1.0, 2.0, 5.0], [0.0, 4.0, 8.0])
  assert found.value == 0.5
  assert np.isnan(estimates.ratio_of_means([1.0], [2.0]).low)


def test_bootstrap_is_the_percentile_of_resampled_rows():
  values = np.random.default_rng(1).lognormal(size=(12, 3))

  def spread(rows):
    return rows.mean(axis=0).max() - rows.mean(axis=0).min()

  found = estimates.bootstrap(values, spread, num_resamples=500, seed=7)
  assert found.value == spread(values)
  # SciPy draws the same rows of a generator of the same seed.
  theirs = scipy.stats.bootstrap(
    (np.arange(12),),
    lambda rows: spread(values[rows]),
    n_resamples=500,
    vectorized=False,
    method="percentile",
    rng=np.random.default_rng(7),
  ).confidence_interval
  np.testing.assert_allclose(found[1:], theirs, rtol=1e-12)
  assert found == estimates.bootstrap(values, spread, num_resamples=500, seed=7)
  assert found != estimates.bootstrap(values, spread, num_resamples=500, seed=8)


def test_bootstrap_of_few_seeds():
  assert np.isnan(estimates.bootstrap(np.zeros(0), np.mean)).all()
  value, low, high = estimates.bootstrap(np.ones(1), np.mean)
  assert value == 1 and np.isnan([low, high]).all()
  assert estimates.bootstrap(np.full(5, 2.0), np.mean) == (2.0, 2.0, 2.0)
  with pytest.raises(ValueError, match="at least 1, got num_resamples=0"):
    estimates.bootstrap(np.ones(2), np.mean, num_resamples=0)
