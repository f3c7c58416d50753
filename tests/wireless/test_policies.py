import jax
import numpy as np
import pytest
from jax.tree_util import Partial

from tanbr_jax import wireless
from tanbr_jax.wireless import layer_energy, policies, reroutes

TABLE = np.array(
  [[0.0, 0.1, 0.9, 1.0], [0.1, 0.0, 0.8, 1.0], [0.9, 0.8, 0.0, 1.0]]
)
GATES = np.array([[0.6, 0.4], [0.9, 0.1]])
IDS = np.array([[0, 1], [2, 1]])
PROBABILITIES = np.array([[0.5, 0.3, 0.2], [0.05, 0.1, 0.85]])


def layer(**changes):
  defaults = {
    "dissimilarity": TABLE,
    "marginal_j": np.tile([[1.0], [2.0], [3.0]], (1, 4)),
    "latency_s": np.array([1.0, 1.0, 1.0]),
    "budget": 0.0,
    "knob": 0.0,
  }
  return policies.Layer(**defaults | changes)


def ids_of(name, **changes):
  ids, gates = policies.POLICIES[name](
    GATES.copy(), IDS.copy(), PROBABILITIES, layer(**changes)
  )
  assert (gates[ids < 0] == 0).all()
  return ids.tolist()


LATE = np.array([[1.0] * 4, [2.0, np.inf, np.inf, np.inf], [np.inf] * 4])


def test_choices_worked_out_by_hand():
  assert ids_of("ideal_top_k", marginal_j=LATE) == [[0, 1], [2, 1]]
  # Expert 1 serves one pair, the first token's; expert 2 none.
  assert ids_of("practical_top_k", marginal_j=LATE) == [[0, 1], [-1, -1]]
  # Gates .4 of .6 and .1 of .9: shares of .67 and .11 of the largest.
  assert ids_of("wdmoe", knob=0.5) == [[0, 1], [2, -1]]
  # With a slow expert 0 its worth is .2, half of .4.
  slow = np.array([3.0, 1.0, 1.0])
  assert ids_of("wdmoe", knob=0.6, latency_s=slow) == [[-1, 1], [2, -1]]
  # Squared gates of the second slots: .16 and .01.
  assert ids_of("adapmoe", knob=0.1) == [[0, 1], [2, -1]]
  # First slots are 0 and 2; expert 1 is .1 from 0, a tenth of skipping.
  assert ids_of("sere", knob=0.2) == [[0, 0], [2, 0]]
  assert ids_of("sere", knob=0.05) == [[0, 1], [2, 1]]
  # Half of the router's .8: expert 0 alone; of .95: expert 2, of .475, alone.
  assert ids_of("des", knob=0.5) == [[0, -1], [2, -1]]
  assert ids_of("siftmoe", budget=0.05) == [[0, 0], [2, 0]]
  assert ids_of("siftmoe", budget=2.0) == [[-1, -1], [-1, -1]]


def test_only_tokens_that_lose_a_pair_get_more_of_siftmoe_s_budget():
  # Expert 2 cannot serve, expert 1 one pair: of .4 and .1 the first token's.
  # Token 1 loses all it has, 1.0, hence may do without; token 0 would need .04
  # to have its pair at expert 0, and may not.
  late = {"marginal_j": LATE}
  assert ids_of("siftmoe", budget=0.01, **late) == [[0, 1], [-1, -1]]
  assert ids_of("siftmoe", budget=0.0, **late) == [[0, 1], [-1, -1]]
  # With .05 expert 1's pair moves to expert 0, which leaves room for none.
  assert ids_of("siftmoe", budget=0.05, **late) == [[0, 0], [-1, -1]]


def test_siftmoe_serves_what_practical_top_k_does_where_nothing_may_change():
  rng = np.random.default_rng(0)
  lost = 0
  for _ in range(30):
    gates = rng.dirichlet(np.ones(2), 12)
    ids = np.array([rng.permutation(3)[:2] for _ in range(12)])
    most = rng.integers(3, 12, 3)
    marginal = np.where(np.arange(24) < most[:, None], 1.0, np.inf)
    one = layer(marginal_j=marginal)
    kept, _ = policies.sift(gates, ids, None, one)
    practical, _ = policies.practical_top_k(gates, ids, None, one)
    untouched = (practical >= 0).all(axis=1) & (kept == ids).all(axis=1)
    lost += (practical < 0).sum()
    # Who is late in one need not be in the other, as many are.
    least = np.maximum(np.bincount(ids.ravel(), minlength=3) - most, 0).sum()
    assert (practical < 0).sum() == least <= (kept < 0).sum()
    spent = np.where(kept == ids, 0, gates * TABLE[ids, kept]).sum(axis=1)
    assert ((spent == 0) >= untouched).all()
    loads = np.bincount(kept[kept >= 0], minlength=3)
    assert (loads <= most).all()
  assert lost > 30


def test_des_scales_the_gates_of_its_own_members():
  _, gates = policies.POLICIES["des"](
    GATES, IDS, PROBABILITIES, layer(knob=1.0)
  )
  # Both experts are needed: shares of their probabilities.
  np.testing.assert_allclose(
    gates, [[0.5 / 0.8, 0.3 / 0.8], [0.1 / 0.95, 0.85 / 0.95]]
  )


def test_random_replacements_keep_the_budget():
  rng = np.random.default_rng(0)
  changed = 0
  for seed in range(50):
    gates = rng.dirichlet(np.ones(2), 8)
    ids = np.array([rng.permutation(3)[:2] for _ in range(8)])
    new, _ = policies.random_replacement(
      gates,
      ids,
      None,
      layer(budget=0.3, knob=seed, marginal_j=np.ones((3, 16))),
    )
    spent = gates * TABLE[ids, new]
    spent = np.where(new == ids, 0.0, spent).sum(axis=1)
    assert (spent <= 0.3 + 1e-12).all()
    changed += (new != ids).sum()
  assert changed > 100


@pytest.fixture(scope="module")
def radio():
  """Costs and marginals [L, R] of two layers and two realisations."""
  rng = np.random.default_rng(0)
  nodes = layer_energy.Nodes(
    is_local=np.arange(4) == 0,
    load_s=np.full(4, 0.01),
    compute_s=np.full(4, 1e-4),
    load_j=np.zeros(4),
    compute_j=np.full(4, 1e-3),
  )
  link = layer_energy.Link(state_bits=128, bandwidth_hz=1e4, deadline_s=0.1)
  costs = [
    [
      layer_energy.layer_costs(
        nodes,
        link,
        gain=wireless.path_gain(rng.uniform(20, 150, 4)) * rng.gamma(2, 0.5, 4),
        most_states=16,
      )
      for _ in range(2)
    ]
    for _ in range(2)
  ]
  marginal = np.array([[one.marginal_j for one in row] for row in costs])
  return costs, marginal


@pytest.fixture(scope="module")
def run(tiny):
  model, params, ids = tiny

  @jax.jit
  def apply(reroute):
    observe = Partial(reroutes.observe_ids, ())
    return model.apply(params, ids, reroute=reroute, observe=observe)

  return apply


@pytest.fixture(scope="module")
def plainly(tiny):
  """The model's own logits and routing."""
  model, params, ids = tiny

  def routing_of(tree, layer, output):
    del tree, output
    return layer.routing

  return jax.jit(
    lambda: model.apply(params, ids, observe=Partial(routing_of, ()))
  )()


def test_the_reroute_is_the_policy_of_each_sequence(run, plainly, radio):
  costs, marginal = radio
  table = np.random.default_rng(3).uniform(0.1, 1, (2, 4, 5)).astype(np.float32)

  logits, seen = run(
    reroutes.reroute(
      "siftmoe", dissimilarity=table, marginal_j=marginal, budgets=0.3
    )
  )
  # Layer 0 sees the router's own states: sequence by sequence on the host.
  unchanged, plain = plainly
  for index in range(2):
    rows = slice(8 * index, 8 * index + 8)
    expected = wireless.select_prefill(
      np.asarray(plain.gates[0, rows], np.float64),
      np.asarray(plain.expert_ids[0, rows]),
      table[0],
      marginal[0, index].astype(np.float32),
      budget=np.float32(0.3),
    )
    np.testing.assert_array_equal(seen[0, rows], expected)
  assert not np.allclose(logits, unchanged)
  found = reroutes.energies_j(seen, costs)
  by_hand = 0.0
  for expert in range(4):
    load = int((np.asarray(seen)[1, 8:] == expert).sum())
    by_hand += costs[1][1].energy_j[expert, load]
  assert found[1, 1] == pytest.approx(by_hand, rel=1e-12)


@pytest.mark.parametrize("name", sorted(policies.POLICIES))
def test_every_policy_runs_in_a_model_and_serves_what_can_be_served(
  run, plainly, radio, name
):
  costs, marginal = radio
  reroute = reroutes.reroute(
    name,
    dissimilarity=np.full((2, 4, 5), 0.5),
    marginal_j=marginal,
    budgets=0.2,
    knob=0.3,
  )
  logits, seen = run(reroute)
  energy = reroutes.energies_j(seen, costs)
  if name == "ideal_top_k":
    # Programs differ in the last bits of float32 logits of about 1.
    np.testing.assert_allclose(logits, plainly[0], rtol=1e-4, atol=1e-5)
  else:
    assert np.isfinite(energy).all()


def test_bad_reroutes_are_refused(radio):
  _, marginal = radio
  arguments = {
    "dissimilarity": np.zeros((2, 4, 5)),
    "marginal_j": marginal,
    "budgets": 0.1,
  }
  with pytest.raises(ValueError, match="policy must be one of .*'siftmo'"):
    reroutes.reroute("siftmo", **arguments)
  with pytest.raises(ValueError, match="budgets must be .*budgets=-0.1"):
    reroutes.reroute("siftmoe", **arguments | {"budgets": [0.1, -0.1]})
  with pytest.raises(ValueError, match=r"L=2, E=4, got \[2, 2, 3, 16\]"):
    reroutes.reroute(
      "siftmoe", **arguments | {"marginal_j": marginal[:, :, :3]}
    )
