import dataclasses

import numpy as np
import pytest
import toy

from tanbr_jax import regret


def test_cumulative_regret_by_hand():
  played = toy.make_trace([[0.5, 0.25]], [[0.75, np.nan]], [[1.0, 1.0]])
  np.testing.assert_array_equal(regret.expected(played), [[0.5, 1.25]])
  # 1 - .75, then the NaN slot's expected regret 1 - .25.
  np.testing.assert_array_equal(regret.realised(played), [[0.25, 1.0]])


def test_regret_against_another_run():
  played = toy.make_trace([[0.5, 0.25]], [[0.5, 0.25]], [[1.0, 1.0]])
  oracle = toy.make_trace([[0.75, 0.0]], [[0.75, 0.0]], [[1.0, 1.0]])
  found = regret.expected(regret.against(played, oracle))
  np.testing.assert_array_equal(found, [[0.25, 0.0]])
  other = toy.make_trace([[0.5]], [[0.5]], [[1.0]])
  with pytest.raises(ValueError, match="the same task_mix, got shapes"):
    regret.against(played, other)


@pytest.mark.parametrize("exponent", [0.5, 1.0])
def test_growth_exponent_of_a_power(exponent):
  rounds = np.arange(1, 5001)
  scales = np.asarray([[1.0], [3.0], [9.0]])
  found = regret.growth_exponent(scales * rounds[None] ** exponent)
  np.testing.assert_allclose(found, exponent, atol=1e-9)


def test_growth_exponent_ignores_rounds_before_the_first():
  rounds = np.arange(1, 1001.0)
  bent = np.where(rounds < 100, 100.0, rounds)[None]
  np.testing.assert_allclose(
    regret.growth_exponent(bent, first_round=100).value, 1.0, atol=1e-9
  )
  assert regret.growth_exponent(bent, first_round=1).value < 0.9
  with pytest.raises(ValueError, match="first_round=1001, num_rounds=1000"):
    regret.growth_exponent(bent, first_round=1001)


def test_an_oracle_has_no_exponent():
  cumulative = np.stack([np.zeros(100), np.arange(1.0, 101)])
  assert np.isnan(regret.growth_exponent(cumulative[:1]).value)
  assert regret.growth_exponent(cumulative).value == pytest.approx(1.0)


def test_against_an_oracles_run():
  played = toy.make_trace([[0.5, 0.25]], [[0.5, 0.25]], [[9.0, 9.0]])
  oracle = toy.make_trace([[0.75, 0.0]], [[0.75, 0.0]], [[9.0, 9.0]])
  paired = regret.against(played, oracle)
  np.testing.assert_array_equal(regret.expected(paired), [[0.25, 0.0]])
  other = dataclasses.replace(oracle, task_mix=oracle.task_mix / 2)
  with pytest.raises(ValueError, match="same task_mix"):
    regret.against(played, other)


def test_student_interval():
  # Mean 3, s = 1 and n = 3: half = t(.975, 2) / sqrt(3) = 4.302653 / 1.732051.
  found = regret.mean(np.asarray([2.0, 3.0, 4.0, np.nan]))
  np.testing.assert_allclose(
    found, [3.0, 3 - 2.484138, 3 + 2.484138], rtol=1e-6
  )


def test_paired_ratio():
  found = regret.paired_ratio([1.0, 8.0, 5.0], [2.0, 4.0, 0.0])
  # Logs are -ln 2 and ln 2: mean 0, s = sqrt 2 ln 2, half = 12.7062 ln 2.
  high = np.exp(12.706205 * np.log(2))
  np.testing.assert_allclose(found, [1.0, 1 / high, high], rtol=1e-5)
  with pytest.raises(ValueError, match=r"\(1,\) and \(2,\)"):
    regret.paired_ratio([1.0], [1.0, 2.0])


def test_ratio_of_means():
  # Equal baselines: the ratio is a plain mean, and so is its interval.
  values = np.asarray([1.0, 2.0, 6.0])
  found = regret.ratio_of_means(values, np.full(3, 2.0))
  np.testing.assert_allclose(found, regret.mean(values / 2))
  # Means 2 and 4; a seed whose baseline is zero does no harm.
  found = regret.ratio_of_means([-1.0, 2.0, 5.0], [0.0, 4.0, 8.0])
  assert found.value == 0.5
  assert np.isnan(regret.ratio_of_means([1.0], [2.0]).low)
