import numpy as np
import pytest
import random_layers

from tanbr_jax import wireless
from tanbr_jax.wireless import (
  exhaustive,
  instance,
  mixed_integer,
  prefill_priced,
)

# Energies are sums of at most eight float64 of one sign: equal to 1e-14 or so,
# held to 1e-9.
RELATIVE = 1e-9


def solve_both(solver, arguments, budget):
  """Energies of a solver and of all choices; inf where there is none."""
  best = random_layers.least_energy(*arguments, budget)
  try:
    found = solver(*arguments, budget=budget)
  except wireless.InfeasibleError as error:
    assert "\n" not in str(error) and "budget=" in str(error)
    assert "deadline" in str(error)
    return np.inf, best, None
  energy = random_layers.check(found.replacement, *arguments, budget)
  assert found.energy_j == pytest.approx(energy, rel=RELATIVE, abs=1e-300)
  return energy, best, found


@pytest.mark.parametrize(
  ("tokens", "slots", "experts", "convex", "count", "method"),
  [
    (4, 1, 3, True, 1200, "paths"),
    (3, 1, 4, True, 800, "paths"),
    (4, 1, 3, False, 500, "loads"),
    (2, 2, 3, True, 500, "loads"),
    (3, 2, 2, False, 500, "loads"),
    (1, 3, 4, True, 500, "loads"),
  ],
)
def test_exact_methods_find_the_least_energy(
  tokens, slots, experts, convex, count, method
):
  rng = np.random.default_rng(tokens * 100 + slots * 10 + experts)
  infeasible = 0
  for _ in range(count):
    *arguments, budget = random_layers.draw(
      rng, tokens=tokens, slots=slots, experts=experts, convex=convex
    )
    energy, best, found = solve_both(wireless.solve_prefill, arguments, budget)
    assert energy == best or abs(energy - best) <= RELATIVE * best
    infeasible += found is None
    # A draw of descending marginals may ascend by chance.
    expected = {method, "paths"} if slots == 1 else {method}
    assert found is None or found.method in expected
  assert 0 < infeasible < count / 3


def test_priced_bounds_hold_and_the_energy_is_near_the_least():
  rng = np.random.default_rng(0)
  best_found = 0

  def priced(*arguments, budget):
    one = instance.make(*arguments, budget=budget)
    found = prefill_priced.solve(one, steps=1, sweeps=1)
    ids = instance.to_ids(found.columns, one.num_experts)
    bounds.append(found.lower_bound)
    return wireless.Choice(ids, found.energy, found.lower_bound, "priced")

  for _ in range(2000):
    bounds = []
    *arguments, budget = random_layers.draw(rng, tokens=2, slots=2, experts=3)
    energy, best, found = solve_both(priced, arguments, budget)
    if found is not None:
      assert bounds[0] <= best * (1 + RELATIVE) + 1e-300
      assert energy >= best * (1 - RELATIVE)
      best_found += energy <= best * (1 + RELATIVE)
  # Not exact, in one step still mostly right on instances this small.
  assert best_found > 1300


def test_milp_and_brute_force_agree_with_all_choices():
  rng = np.random.default_rng(1)
  for count in range(60):
    *arguments, budget = random_layers.draw(
      rng, tokens=3, slots=2, experts=2, convex=count % 2 == 0
    )
    for solver in (exhaustive.brute_force, mixed_integer.prefill_milp):
      energy, best, _ = solve_both(solver, arguments, budget)
      assert energy == best or abs(energy - best) <= RELATIVE * best


def test_larger_layers_keep_budgets_and_agree_with_the_milp():
  rng = np.random.default_rng(2)
  for tokens, slots, experts in ((24, 1, 6), (10, 2, 5), (6, 4, 8)):
    gates, ids, table, marginal, _ = random_layers.draw(
      rng, tokens=tokens, slots=slots, experts=experts
    )
    marginal = np.cumsum(np.where(np.isinf(marginal), 1.0, marginal), axis=1)
    arguments = gates, ids, table, marginal
    found = wireless.solve_prefill(*arguments, budget=0.15)
    energy = random_layers.check(found.replacement, *arguments, 0.15)
    exact = mixed_integer.prefill_milp(*arguments, budget=0.15)
    assert energy == pytest.approx(found.energy_j, rel=RELATIVE)
    assert found.lower_bound_j <= exact.energy_j * (1 + 1e-6)
    # HiGHS proves optima to its own tolerance of 1e-6.
    assert energy >= exact.energy_j * (1 - 1e-6)
    assert energy <= exact.energy_j * (1 + 1e-6 if slots == 1 else 1.2)


def test_select_prefill_on_a_layer_worked_out_by_hand():
  # Two tokens at expert 0, whose second pair costs 5. Token 1 may go to expert
  # 1 (0.5 * 0.2 <= 0.1) for 2; token 0's gate of 1 forbids it. No one may skip.
  gates = np.array([[1.0], [0.5]])
  ids = np.array([[0], [0]])
  table = np.array([[0.0, 0.2, 9.0], [0.2, 0.0, 9.0]])
  marginal = np.array([[1.0, 5.0], [2.0, 3.0]])
  choose = wireless.select_prefill
  assert choose(gates, ids, table, marginal, budget=0.1).tolist() == [[0], [1]]
  # A budget of 0 keeps the router's choice, one of 9 skips all.
  assert choose(gates, ids, table, marginal, budget=0.0).tolist() == [[0], [0]]
  assert choose(gates, ids, table, marginal, budget=9).tolist() == [[-1], [-1]]
  # Expert 0 takes one pair, expert 1 none: token 1 has nowhere to go.
  marginal = np.array([[1.0, np.inf], [np.inf, np.inf]])
  with pytest.raises(wireless.InfeasibleError, match="token 1 .*deadline"):
    choose(gates, ids, table, marginal, budget=0.1)
  # A pair that the router skipped stays skipped and costs nothing.
  ids = np.array([[0], [-1]])
  assert choose(gates, ids, table, marginal, budget=0).tolist() == [[0], [-1]]


def test_infinite_tables_forbid_and_infinite_budgets_allow_the_rest():
  gates = np.array([[0.5, 0.5], [1.0, 0.0]])
  ids = np.array([[0, 1], [0, -1]])
  # Expert 1 must not be skipped, nor be replaced by 0.
  table = np.array([[0.0, 3.0, 7.0], [np.inf, 0.0, np.inf]])
  marginal = np.ones((2, 4))
  for arguments in ((gates, ids), (gates[:1], ids[:1])):
    found = wireless.select_prefill(*arguments, table, marginal, budget=np.inf)
    assert found.tolist() == [[-1, 1], [-1, -1]][: len(found)]
  found = wireless.select_decode(
    gates[0], ids[0], table, np.ones(2), budget=np.inf
  )
  assert found.replacement.tolist() in ([-1, 1], [1, 1])
  assert found.energy_j == 1.0


def test_a_fixed_load_breaks_convexity_and_the_programme_holds():
  # Loading costs 10 once, pairs 1: both tokens share one expert although the
  # first pairs cost 11 and 10.5; augmenting paths would open both.
  gates, ids = np.ones((2, 1)), np.array([[0], [1]])
  table = np.array([[0.0, 0.1, 9.0], [0.1, 0.0, 9.0]])
  marginal = np.array([[11.0, 1.0], [10.5, 1.0]])
  assert not instance.is_convex(marginal)
  found = wireless.solve_prefill(gates, ids, table, marginal, budget=0.1)
  assert (found.method, found.energy_j) == ("loads", 11.5)
  assert found.replacement.tolist() == [[1], [1]]


@pytest.mark.parametrize(
  ("change", "message"),
  [
    ({"budget": -1.0}, r"budget must be at least 0, got budget=-1.0"),
    ({"budget": np.nan}, r"budget must be at least 0, got budget=nan"),
    ({"expert_ids": np.array([[3]])}, r"in \[0, 2\).* got 3 to 3"),
    ({"expert_ids": np.array([[0.5]])}, r"float64\[1, 1\]"),
    ({"gates": np.array([[-0.5]])}, r"gates must be .* got -0.5"),
    ({"dissimilarity": np.zeros((2, 2))}, r"\[E, E \+ 1\], got \[2, 2\]"),
    ({"dissimilarity": -np.ones((2, 3))}, r"dissimilarity must .* got -1.0"),
    ({"dissimilarity": np.full((2, 3), np.nan)}, r"dissimilarity .* got nan"),
    ({"marginal_energy": np.ones((3, 1))}, r"E=2, got \[3, 1\]"),
    ({"marginal_energy": np.array([[1.0], [-2.0]])}, r"at least 0, got -2.0"),
  ],
)
def test_bad_instances_are_refused_in_one_line(change, message):
  arguments = {
    "gates": np.ones((1, 1)),
    "expert_ids": np.zeros((1, 1), int),
    "dissimilarity": np.zeros((2, 3)),
    "marginal_energy": np.ones((2, 1)),
    "budget": 0.0,
  }
  with pytest.raises(ValueError, match=message) as error:
    wireless.select_prefill(**arguments | change)
  assert "\n" not in str(error.value)


def test_priced_serves_layers_whose_experts_are_nearly_full():
  # 16 pairs, experts of 6, 6 and 5: what all want, expert 0, takes 6 of them.
  rng, ratios = np.random.default_rng(4), []
  for _ in range(20):
    gates = rng.dirichlet(np.ones(2), 8)
    ids = np.tile([0, 1], (8, 1))
    table = rng.uniform(0.1, 0.3, (3, 4))
    table[:, -1] = 9.0
    marginal = np.sort(rng.exponential(size=(3, 16)) * [[1], [9], [99]], axis=1)
    marginal[np.arange(16) >= np.array([[6], [6], [5]])] = np.inf
    one = instance.make(gates, ids, table, marginal, budget=1.0)
    found = prefill_priced.solve(one, sweeps=6)
    ids_found = instance.to_ids(found.columns, 3)
    energy = random_layers.check(ids_found, gates, ids, table, marginal, 1.0)
    exact = prefill_milp_energy(gates, ids, table, marginal)
    ratios.append(energy / exact)
    assert found.lower_bound <= exact * (1 + 1e-6)
  # Feasible always, and mostly near: pairs move two by two, not in rings.
  assert np.max(ratios) < 2 and np.median(ratios) < 1.2


def prefill_milp_energy(*arguments):
  return mixed_integer.prefill_milp(*arguments, budget=1.0).energy_j
