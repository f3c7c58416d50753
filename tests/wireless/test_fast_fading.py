import numpy as np
import pytest

from tanbr_jax.wireless import fading, fast_fading

# A toy of three levels, correlated over slots.
CHAIN = fast_fading.Chain(
  np.array([0.25, 1.0, 2.0]),
  np.array([0.3, 0.5, 0.2]),
  np.array([[0.6, 0.4, 0.0], [0.2, 0.5, 0.3], [0.0, 0.5, 0.5]]),
  np.zeros(3, bool),
)
COST = np.expm1(np.arange(7) * 0.6)


def value_by_recursion(slots, level, left, chain, cost):
  """Exact value iteration, written as its definition."""
  best = np.inf
  for units in range(left + 1):
    if slots == 1 and units < left:
      continue
    total = cost[units] / chain.gains[level]
    if slots > 1:
      total += sum(
        chain.transition[level, after]
        * value_by_recursion(slots - 1, after, left - units, chain, cost)
        for after in range(len(chain.gains))
        if chain.transition[level, after] > 0
      )
    best = min(best, total)
  return best


def test_the_programme_is_exact_value_iteration_on_a_toy():
  found = fast_fading.solve(COST, CHAIN, num_slots=3)
  for level in range(3):
    for left in range(5):
      expected = value_by_recursion(3, level, left, CHAIN, COST)
      assert found.energy_j[0, level, left] == pytest.approx(
        expected, rel=1e-12
      )


def random_policy(rng, slots, levels, units):
  left = np.arange(units + 1)
  send = rng.integers(0, left + 1, (slots, levels, units + 1))
  send[-1] = left
  return send


def test_the_programme_takes_at_most_what_any_causal_policy_takes():
  # 2,000 random channels, each against two policies of its own.
  rng = np.random.default_rng(0)
  for _ in range(2000):
    levels, units, slots = 2, 3, int(rng.integers(1, 4))
    chain = fast_fading.Chain(
      rng.gamma(2, 0.5, levels) + 0.01,
      rng.dirichlet(np.ones(levels)),
      rng.dirichlet(np.ones(levels), levels),
      np.zeros(levels, bool),
    )
    cost = np.concatenate(
      [[0], np.cumsum(rng.exponential(size=units).cumsum())]
    )
    best = fast_fading.solve(cost, chain, num_slots=slots)
    sizes = {"num_slots": slots, "num_levels": levels, "num_units": units}
    for send in (
      fast_fading.uniform_bits(**sizes),
      random_policy(rng, slots, levels, units),
    ):
      other = fast_fading.evaluate(send, cost, chain)
      assert (best.expected_j <= other.expected_j * (1 + 1e-12)).all()


def test_evaluating_the_programme_s_own_policy_gives_its_energy():
  best = fast_fading.solve(COST, CHAIN, num_slots=3)
  again = fast_fading.evaluate(best.send, COST, CHAIN)
  np.testing.assert_allclose(again.energy_j, best.energy_j, rtol=1e-12)


def test_the_surrogate_is_the_expected_energy_of_uniform_bits():
  one = fading.gamma(2.0)
  chain = fast_fading.independent(one, num_levels=24)
  options = {"gain": 1e-7, "bandwidth_hz": 1e5}
  cost = fast_fading.slot_energies_j(
    num_units=12, unit_bits=2000.0, slot_s=0.02, **options
  )
  send = fast_fading.uniform_bits(num_slots=4, num_levels=24, num_units=12)
  assert (send[0, 0, 12], send[3, 0, 3]) == (3, 3)
  spread = fast_fading.evaluate(send, cost, chain).expected_j[12]
  # Twelve units in four slots are three in each, at E[1/h] = 2.
  assert spread == pytest.approx(4 * cost[3] * 2.0, rel=1e-9)
  assert fast_fading.solve(cost, chain, num_slots=4).expected_j[12] < spread


def test_following_the_programme_on_drawn_gains_takes_what_it_expects():
  one = fading.gamma(2.0)
  chain = fast_fading.independent(one, num_levels=64)
  cost = np.expm1(np.arange(9) * 0.4)
  found = fast_fading.solve(cost, chain, num_slots=4)
  drawn = one.draw(np.random.default_rng(0), (20_000, 4))
  spent, is_out = fast_fading.simulate(found, cost, one, drawn, num_units=8)
  assert not is_out.any()
  # Five standard errors; bins keep 1/h in the mean.
  slack = 5 * spent.std() / np.sqrt(len(spent))
  assert spent.mean() == pytest.approx(found.expected_j[8], abs=slack)


def test_a_correlated_chain_takes_what_its_programme_expects():
  one, rng = fading.gamma(2.0), np.random.default_rng(3)
  chain = fast_fading.correlated(
    one, rng, correlation=0.9, num_levels=16, num_draws=50_000
  )
  np.testing.assert_allclose(chain.transition.sum(axis=1), 1.0, rtol=1e-12)
  # The levels are alike in probability, and stay so: 3,125 draws a level have a
  # standard error below 2 % of it; five of them.
  after = chain.first @ chain.transition
  np.testing.assert_allclose(after, chain.first, rtol=0.1)
  cost = np.expm1(np.arange(9) * 0.4)
  found = fast_fading.solve(cost, chain, num_slots=3)
  drawn = fading.gauss_markov(
    one, rng, num_slots=3, size=(20_000,), correlation=0.9
  ).T
  spent, _ = fast_fading.simulate(found, cost, one, drawn, num_units=8)
  # Three slots of amplitudes are not quite a chain of levels: within 3 %, and
  # five standard errors.
  slack = 0.03 * found.expected_j[8] + 5 * spent.std() / np.sqrt(len(spent))
  assert spent.mean() == pytest.approx(found.expected_j[8], abs=slack)
  # Who knows of the correlation takes less than who takes slots for i.i.d.
  naive = fast_fading.solve(
    cost, fast_fading.independent(one, num_levels=16), num_slots=3
  )
  other = fast_fading.evaluate(naive.send, cost, chain)
  assert found.expected_j[8] < other.expected_j[8]


@pytest.mark.parametrize("one", [fading.rayleigh(), fading.rician(2.0)])
def test_truncated_inversion_has_the_outage_that_it_is_given(one):
  with pytest.raises(ValueError, match="plain inversion is refused"):
    fast_fading.independent(one)
  chain = fast_fading.independent(one, num_levels=24, outage_probability=0.05)
  cost = np.expm1(np.arange(5) * 0.5)
  # One slot has to invert: an outage as often as the least gain is missed.
  single = fast_fading.solve(cost, chain, num_slots=1)
  assert fast_fading.outage_probability(single)[1:] == pytest.approx(0.05)
  several = fast_fading.solve(cost, chain, num_slots=3)
  chance = fast_fading.outage_probability(several)[4]
  assert 0 <= chance <= 0.05
  drawn = one.draw(np.random.default_rng(2), (20_000, 3))
  _, is_out = fast_fading.simulate(several, cost, one, drawn, num_units=4)
  assert is_out.mean() == pytest.approx(chance, abs=5 * 0.22 / np.sqrt(20_000))


def test_bad_programmes_are_refused():
  with pytest.raises(ValueError, match="num_slots=0"):
    fast_fading.solve(COST, CHAIN, num_slots=0)
  with pytest.raises(ValueError, match="slot_j must be"):
    fast_fading.solve(COST + 1, CHAIN, num_slots=1)
  with pytest.raises(ValueError, match="transition must sum to 1"):
    wrong = CHAIN._replace(transition=CHAIN.transition * 2)
    fast_fading.solve(COST, wrong, num_slots=1)
  with pytest.raises(ValueError, match="all that is left in the last slot"):
    fast_fading.evaluate(np.zeros((1, 3, 7), int), COST, CHAIN)
  with pytest.raises(ValueError, match="slot_s must be positive"):
    fast_fading.slot_energies_j(
      num_units=1, unit_bits=1, gain=1, bandwidth_hz=1, slot_s=0
    )
