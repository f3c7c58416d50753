import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from tanbr_jax import moe
from tanbr_jax.wireless import deviation, propagation


def replace(tree, layer):
  """A random replacement: ids of the tree, drawn beforehand; -1 skips."""
  ids = tree
  gates = jnp.where(ids < 0, 0.0, layer.routing.gates)
  return layer.routing._replace(expert_ids=ids, gates=gates)


@pytest.fixture(scope="module")
def replacement(tiny):
  _, _, ids = tiny
  drawn = np.random.default_rng(0).integers(-1, 4, (2, ids.size, 2))
  return Partial(replace, jnp.asarray(drawn, jnp.int32))


@pytest.fixture(scope="module")
def run(tiny):
  """What an observer sees, compiled once for each kind."""
  model, params, ids = tiny

  @jax.jit
  def apply(reroute, observe):
    return model.apply(params, ids, reroute=reroute, observe=observe)

  return apply


def observe_layer(tree, layer, output):
  del tree
  return layer.hidden, layer.routing.gates, layer.routing.expert_ids, output[0]


@pytest.fixture(scope="module")
def states(run):
  """hidden, gates, ids and output of every layer, float64."""
  seen = run(None, Partial(observe_layer, ()))[1]
  return [np.asarray(part, np.float64) for part in seen]


def outputs_by_loop(params, states, layer):
  """[N, E, D] in NumPy: squared ReLU."""
  stack = params["params"][f"layer_{layer}"]["experts"]["stack"]
  w_in, w_out = np.asarray(stack.w_in), np.asarray(stack.w_out)
  hidden = states[0][layer]
  return np.stack(
    [np.square(np.maximum(hidden @ w_in[e], 0)) @ w_out[e] for e in range(4)],
    axis=1,
  )


def test_bound_and_deviation_of_every_token_by_loop(
  tiny, run, states, replacement
):
  model, params, ids = tiny
  table = np.random.default_rng(1).uniform(size=(2, 4, 5))
  observe = deviation.observe_deviations(replacement, table)
  found = run(None, observe)[1]
  new = np.asarray(jax.tree.leaves(replacement)[0])
  for layer in range(2):
    outputs = outputs_by_loop(params, states, layer)
    for n in range(ids.size):
      change, bound, estimate = np.zeros(8), 0.0, 0.0
      for k in range(2):
        gate, old = states[1][layer, n, k], int(states[2][layer, n, k])
        to = new[layer, n, k]
        if to == old:
          continue
        one = gate * (outputs[n, old] - (outputs[n, to] if to >= 0 else 0))
        change, bound = change + one, bound + np.linalg.norm(one)
        estimate += gate * table[layer, old, to]
      got = [float(part[layer, n]) for part in found]
      # float32 outputs of size about 1, 16 terms: 1e-5.
      assert got == pytest.approx(
        [np.linalg.norm(change), bound, estimate], rel=1e-4, abs=1e-5
      )
  measured, bound = np.asarray(found.measured), np.asarray(found.bound)
  assert (measured <= bound * (1 + 1e-5)).all()
  assert (measured < 0.9 * bound).any()


def test_the_bound_is_an_equality_with_one_expert(tiny):
  model, params, ids = tiny
  config = dataclasses.replace(model.config, num_selected=1)
  model = dataclasses.replace(model, config=config)
  drawn = np.random.default_rng(2).integers(-1, 4, (2, ids.size, 1))
  reroute = Partial(replace, jnp.asarray(drawn, jnp.int32))
  observe = deviation.observe_deviations(reroute, np.zeros((2, 4, 5)))
  found = jax.jit(lambda o: model.apply(params, ids, observe=o)[1])(observe)
  np.testing.assert_allclose(found.measured, found.bound, rtol=1e-5)


def test_the_measured_deviation_is_that_of_the_layer_s_output(
  run, states, replacement
):
  # Layer 0 sees the same states with and without the reroute.
  observe = deviation.observe_deviations(replacement, np.zeros((2, 4, 5)))
  found = run(None, observe)[1]
  after = run(replacement, Partial(observe_layer, ()))[1][3]
  change = np.linalg.norm(np.asarray(after[0]) - states[3][0], axis=1)
  np.testing.assert_allclose(found.measured[0], change, rtol=1e-4, atol=1e-5)


def test_tables_are_statistics_over_the_tokens_routed_to_an_expert(
  tiny, states
):
  model, params, ids = tiny
  tables = deviation.calibrate(
    model, params, ids, statistics=("mean", "max", "0.75")
  )
  unused = 0
  for layer in range(2):
    outputs = outputs_by_loop(params, states, layer)
    extended = np.pad(outputs, ((0, 0), (0, 1), (0, 0)))
    for expert in range(4):
      rows = (states[2][layer] == expert).any(axis=1)
      unused += not rows.any()
      rows = rows if rows.any() else np.ones(ids.size, bool)
      found = np.linalg.norm(
        outputs[rows, expert, None] - extended[rows], axis=2
      )
      for name, expected in (
        ("mean", found.mean(axis=0)),
        ("max", found.max(axis=0)),
        ("0.75", np.quantile(found, 0.75, axis=0)),
      ):
        np.testing.assert_allclose(
          tables[name].values[layer, expert], expected, rtol=1e-4, atol=1e-5
        )
  assert unused < 4
  deviation.check_tables(tables["mean"], model, params)


def test_a_table_of_maxima_covers_the_tokens_that_it_was_made_of(
  tiny, run, replacement
):
  model, params, ids = tiny
  tables = deviation.calibrate(model, params, ids, statistics=("mean", "max"))
  covered = {}
  for name, one in tables.items():
    observe = deviation.observe_deviations(replacement, one.values)
    found = run(None, observe)[1]
    estimate = np.asarray(found.estimate) * (1 + 1e-5)
    covered[name] = deviation.coverage(found.measured, estimate)
  assert covered["max"] == 1.0 and 0.3 < covered["mean"] < 1.0


def test_bad_tables_are_refused(tiny):
  model, params, ids = tiny
  found = deviation.calibrate(model, params, ids)["mean"]
  other = model.init(jax.random.key(5))
  with pytest.raises(ValueError, match="this model's experts, .* got those"):
    deviation.check_tables(found, model, other)
  with pytest.raises(ValueError, match=r"\[2, 4, 5\], got \[1, 4, 5\]"):
    deviation.check_tables(
      found._replace(values=found.values[:1]), model, params
    )
  for name in ("median", "1.5"):
    with pytest.raises(ValueError, match=f"statistic must be .*'{name}'"):
      deviation.calibrate(model, params, ids, statistics=(name,))
  dense = dataclasses.replace(
    model, config=dataclasses.replace(model.config, num_experts=None)
  )
  with pytest.raises(ValueError, match="num_experts=None"):
    deviation.calibrate(dense, params, ids)


@pytest.mark.slow
def test_propagation_is_what_the_logits_say(tiny, run, replacement):
  model, params, ids = tiny
  found = propagation.measure(model, params, ids, replacement)
  nothing = Partial(observe_layer, ())
  plain = np.asarray(run(None, nothing)[0])
  new = jax.tree.leaves(replacement)[0]

  def norms(reroute):
    after = np.asarray(run(reroute, nothing)[0])
    return np.linalg.norm((after - plain).reshape(2, -1), axis=1)

  np.testing.assert_allclose(found.together, norms(replacement), rtol=1e-4)

  def first_only(tree, layer):
    ids, is_first = tree
    own = layer.routing
    changed = replace(ids, layer)
    return moe.Routing(
      jnp.where(is_first, changed.expert_ids, own.expert_ids),
      jnp.where(is_first, changed.gates, own.gates),
      own.probabilities,
    )

  first = Partial(first_only, (new, jnp.array([True, False])))
  np.testing.assert_allclose(found.alone[0], norms(first), rtol=1e-4)
  observe = deviation.observe_deviations(replacement, np.zeros((2, 4, 5)))
  seen = run(None, observe)[1].measured
  layers = np.linalg.norm(np.asarray(seen).reshape(2, 2, -1), axis=2)
  np.testing.assert_allclose(found.layers, layers, rtol=1e-5)
  # The largest ratio: the sum of one layer's is a bound for it.
  bound = found.sensitivities[:, None] * found.layers
  assert (found.alone <= bound * (1 + 1e-9)).all()


def test_budgets_by_layer():
  found = propagation.layer_budgets(6.0, np.array([4.0, 2.0, 1.0]))
  # 1/S = .25, .5, 1 of mean 7/12: products with S are alike.
  assert found == pytest.approx(np.array([18.0, 36.0, 72.0]) / 7)
  with pytest.raises(ValueError, match="total=-1"):
    propagation.layer_budgets(-1, np.ones(2))
  with pytest.raises(ValueError, match="positive, got"):
    propagation.layer_budgets(1, np.zeros(2))
