import dataclasses

import numpy as np
import pytest
import toy

from tanbr_jax.online import estimates, regret


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


def test_growth_exponent_has_the_bootstraps_interval():
  # Exact powers of different exponents: the slopes are the exponents, hence
  # the interval must be that of resampled exponents.
  powers = np.asarray([0.3, 0.45, 0.5, 0.55, 0.9, 0.6])
  found = regret.growth_exponent(np.arange(1, 2001.0)[None] ** powers[:, None])
  assert found == pytest.approx(estimates.bootstrap(powers, np.mean), abs=1e-9)
  assert found.low < 0.5 < found.value < found.high


def test_growth_exponent_of_noisy_root_regret():
  # Increments of mean sqrt(t) - sqrt(t - 1), exponential noise: over the last
  # decade a seed's slope has a spread of a few hundredths.
  rounds = np.arange(1, 5001.0)
  steps = np.diff(np.sqrt(rounds), prepend=0)
  noise = np.random.default_rng(0).exponential(size=(16, rounds.size))
  found = regret.growth_exponent(np.cumsum(steps * noise, axis=1))
  assert found.value == pytest.approx(0.5, abs=0.03)
  assert found.low < found.value < found.high


def test_simple_regret_and_root_against_loops():
  rng = np.random.default_rng(0)
  played, optimal = rng.uniform(0, 1, (2, 3, 40)).astype(np.float32)
  trace = toy.make_trace(played, played, optimal)
  gaps, totals = regret.simple(trace), regret.expected(trace)
  scaled = regret.over_root(totals)
  for s in range(3):
    total = 0.0
    for t in range(40):
      gap = float(optimal[s, t]) - float(played[s, t])
      total += gap
      # Float64 on both sides: only the order of the sum may differ.
      assert gaps[s, t] == pytest.approx(gap, abs=1e-12)
      assert scaled[s, t] == pytest.approx(total / (t + 1) ** 0.5, abs=1e-12)


def test_optimal_play_uses_the_streams_range():
  optimal = np.ones((2, 4))
  good = toy.make_trace([[0.98, 1, 0.9, 1], [1, 1, 1, 0.5]], optimal, optimal)
  bad = toy.make_trace(np.full((2, 4), [[0.0], [0.75]]), optimal, optimal)
  scale = regret.reward_range([good, bad])
  # Per seed: 1 - 0 of `bad`, 1 - .5 of `good`.
  np.testing.assert_array_equal(scale, [1.0, 0.5])
  # Gaps of at most .025 and of at most .0125.
  play = regret.optimal_play(good, scale=scale, tolerance=0.025)
  np.testing.assert_array_equal(play, [[1, 1, 0, 1], [1, 1, 1, 0]])
  # Alone the first seed's range is .1, and .02 is too large a gap.
  alone = regret.optimal_play(good, tolerance=0.025)
  np.testing.assert_array_equal(alone[0], [0, 1, 0, 1])
  with pytest.raises(ValueError, match="not be negative, got tolerance=-1"):
    regret.optimal_play(good, tolerance=-1)


def test_model_error_and_bonus_come_from_aux():
  plain = toy.make_trace([[0.5, 0.25]], [[0.5, 0.25]], [[1.0, 1.0]])
  assert regret.model_error(plain) is None
  assert regret.exploration_bonus(plain) is None
  aux = {
    "predicted_reward": np.float32([[0.25, 0.5]]),
    "exploration_bonus": np.float32([[-0.5, 0.25]]),
  }
  told = dataclasses.replace(plain, aux=aux)
  np.testing.assert_array_equal(regret.model_error(told), [[0.25, 0.25]])
  np.testing.assert_array_equal(regret.exploration_bonus(told), [[0.5, 0.25]])
