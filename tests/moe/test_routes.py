import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import plain_moe
import pytest

from tanbr_jax import moe

NO = moe.NO_EXPERT
# Six outputs lead to three experts, the last to none.
EXPERT_OF = (0, 1, 0, 2, 1, NO)
N, K, P, E, D = 7, 3, 6, 3, 5


@pytest.fixture(scope="module")
def chosen():
  logits = jax.random.normal(jax.random.key(3), (N, P), jnp.float32)
  routing = moe.top_k(logits, K)
  # One pair of the first token is skipped.
  return logits, moe.keep_pairs(
    routing, jnp.ones((N, K), bool).at[0, 1].set(False)
  )


@pytest.fixture(scope="module")
def experts():
  made = moe.init_experts(
    jax.random.key(0), E, model_dim=D, expert_dim=4, has_biases=True
  )
  bias = jax.random.normal(jax.random.key(1), (E, D), jnp.float32)
  return dataclasses.replace(made, b_out=bias)


X = jax.random.normal(jax.random.key(2), (N, D), jnp.float32)


def test_pairs_of_one_expert_become_one(chosen):
  logits, routing = chosen
  table = jnp.asarray(EXPERT_OF, jnp.int32)
  found_logits, found = jax.jit(
    moe.follow_routes, static_argnames="num_experts"
  )(table, logits, routing, num_experts=E)
  logits, (ids, gates, probabilities) = jax.tree.map(
    np.float64, (logits, routing)
  )
  for n in range(N):
    wanted = np.zeros(E)
    for e, gate in zip(ids[n].astype(int), gates[n], strict=True):
      if e != NO and EXPERT_OF[e] != NO:
        wanted[EXPERT_OF[e]] += gate
    got = np.zeros(E)
    for e, gate in zip(found.expert_ids[n], found.gates[n], strict=True):
      if e != NO:
        assert got[e] == 0  # each expert is named once
        got[e] = gate
    np.testing.assert_allclose(got, wanted, rtol=1e-6)
    for e in range(E):
      own = [p for p in range(P) if EXPERT_OF[p] == e]
      total = np.log(np.exp(logits[n, own]).sum())
      np.testing.assert_allclose(found_logits[n, e], total, atol=1e-5)
      np.testing.assert_allclose(
        found.probabilities[n, e], probabilities[n, own].sum(), rtol=1e-5
      )


def test_a_layer_with_routes_is_one_with_copies_and_constants(chosen, experts):
  logits, routing = chosen
  constants = np.zeros((P, D), np.float32)
  constants[5] = [1, -2, 3, 0, 5]
  out, seen = jax.jit(moe.apply_layer)(
    experts,
    X,
    logits,
    routing,
    routes=moe.Routes(EXPERT_OF),
    constants=jnp.asarray(constants),
    observe=jax.tree_util.Partial(
      lambda tree, layer, output: layer.routing, ()
    ),
  )
  plain, x = plain_moe.to_float64(experts), np.float64(X)
  for n in range(N):
    wanted = np.zeros(D)
    for e, gate in zip(routing.expert_ids[n], routing.gates[n], strict=True):
      if e == NO:
        continue
      own = EXPERT_OF[int(e)]
      wanted += float(gate) * (
        constants[5]
        if own == NO
        else plain_moe.block(plain_moe.one_expert(plain, own), x[n])
      )
    # Float32 sums of a dozen products of size 10.
    np.testing.assert_allclose(out[n], wanted, atol=1e-4)
  assert seen.probabilities.shape == (N, E)


def test_gradients_are_those_of_copies(chosen, experts):
  """Every number of an expert is in the sum of its copies' derivatives."""
  logits, routing = chosen
  table = np.array([0, 1, 0, 2, 1, 2])
  sides = jax.random.normal(jax.random.key(4), (N, D), jnp.float32)

  def with_routes(experts):
    out, _ = moe.apply_layer(
      experts, X, logits, routing, routes=moe.Routes(tuple(table.tolist()))
    )
    return jnp.sum(out * sides)

  def with_copies(copies):
    return jnp.sum(moe.apply_layer(copies, X, logits, routing)[0] * sides)

  found = jax.jit(jax.grad(with_routes))(experts)
  copies = jax.tree.map(lambda leaf: leaf[table], experts)
  each = jax.jit(jax.grad(with_copies))(copies)
  for ours, theirs in zip(
    jax.tree.leaves(found), jax.tree.leaves(each), strict=True
  ):
    wanted = np.zeros(ours.shape)
    np.add.at(wanted, table, np.float64(theirs))
    np.testing.assert_allclose(ours, wanted, atol=1e-4)


def test_padding_gets_no_constant(chosen, experts):
  logits, routing = chosen
  out, _ = jax.jit(moe.apply_layer)(
    experts,
    X,
    logits,
    routing,
    routes=moe.Routes((NO, 0, NO, 1, 2, NO)),
    constants=jnp.ones((P, D), jnp.float32),
    token_mask=jnp.zeros(N, bool),
  )
  np.testing.assert_array_equal(out, 0)


@pytest.mark.parametrize("table", [(), (NO,), (0, 2), (1, 1), (0, -2)])
def test_a_table_that_leaves_experts_out_is_refused(table):
  with pytest.raises(ValueError, match="every expert in .* got"):
    moe.Routes(table)
