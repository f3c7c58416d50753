import itertools

import numpy as np
import pytest

from tanbr_jax import wireless
from tanbr_jax.wireless import decode


def draw(rng, slots, experts):
  gates = rng.dirichlet(np.ones(slots))
  ids = rng.permutation(experts)[:slots]
  table = rng.uniform(0, 1, (experts, experts + 1))
  np.fill_diagonal(table, 0.0)
  table[:, -1] += 0.4
  energy = rng.exponential(size=experts)
  energy[rng.random(experts) < 0.2] = np.inf
  return gates, ids, table, energy, rng.uniform(0, 0.8)


def loop_energy(gates, ids, table, energy, budget):
  """All (E + 1)^K replacements; an expert that is used twice counts once."""
  best = np.inf
  for choice in itertools.product(range(-1, len(table)), repeat=len(ids)):
    pairs = zip(gates, ids, choice, strict=True)
    spent = sum(g * table[i, c] for g, i, c in pairs if i != c)
    if spent <= budget:
      best = min(best, sum(energy[c] for c in set(choice) if c >= 0))
  return best


@pytest.mark.parametrize(
  ("slots", "experts", "count"), [(1, 6, 2000), (2, 4, 1500), (3, 3, 600)]
)
def test_decode_finds_the_least_energy(slots, experts, count):
  rng = np.random.default_rng(slots)
  infeasible = 0
  for _ in range(count):
    *arguments, budget = draw(rng, slots, experts)
    gates, ids, table, energy = arguments
    best = loop_energy(*arguments, budget)
    try:
      found = decode.select_decode(*arguments, budget=budget)
    except wireless.InfeasibleError as error:
      assert best == np.inf and "deadline" in str(error)
      infeasible += 1
      continue
    choice = found.replacement
    pairs = zip(gates, ids, choice, strict=True)
    assert sum(g * table[i, c] for g, i, c in pairs if i != c) <= budget
    assert sum(energy[c] for c in set(choice) if c >= 0) == pytest.approx(
      found.energy_j, rel=1e-12
    )
    assert found.energy_j == pytest.approx(best, rel=1e-9)
  assert 0 < infeasible < count / 2


def test_the_programme_for_many_experts_agrees_with_subsets(monkeypatch):
  rng = np.random.default_rng(7)
  for _ in range(25):
    *arguments, budget = draw(rng, 3, 5)
    found = []
    for most in (10**6, 0):
      monkeypatch.setattr(decode, "MOST_SUBSETS", most)
      try:
        found.append(decode.select_decode(*arguments, budget=budget).energy_j)
      except wireless.InfeasibleError:
        found.append(np.inf)
    # HiGHS decides to 1e-6, energies are counted exactly.
    assert found[0] == pytest.approx(found[1], rel=1e-6)


def test_two_slots_at_one_expert_share_a_transmission():
  # Both slots to expert 2 cost 3 once; staying costs 2 + 2.
  table = np.full((3, 4), 0.1)
  table[:, -1] = 9.0
  found = decode.select_decode(
    np.array([0.5, 0.5]),
    np.array([0, 1]),
    table,
    np.array([2.0, 2.0, 3.0]),
    budget=0.11,
  )
  # Cheaper still: slot 1 joins slot 0's expert, for 2.
  assert found.energy_j == 2.0
  assert len(set(found.replacement.tolist())) == 1


def test_bad_energies_are_refused():
  arguments = np.ones(1), np.zeros(1, int), np.zeros((2, 3))
  with pytest.raises(ValueError, match=r"energy_j must be \[E\] = \[2\]"):
    decode.select_decode(*arguments, np.ones(3), budget=0.0)
  with pytest.raises(ValueError, match="budget must be at least 0"):
    decode.select_decode(*arguments, np.ones(2), budget=-0.1)
