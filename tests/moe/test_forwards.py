"""Identities between the forwards, values and gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tanbr_jax import moe

NUM_TOKENS, NUM_EXPERTS, DIM = 11, 4, 6


@pytest.fixture(scope="module")
def case():
  keys = jax.random.split(jax.random.key(3), 3)
  experts = moe.init_experts(keys[0], NUM_EXPERTS, model_dim=DIM, expert_dim=8)
  x = jax.random.normal(keys[1], (NUM_TOKENS, DIM))
  logits = jax.random.normal(keys[2], (NUM_TOKENS, NUM_EXPERTS))
  return experts, x, logits


def _expert(experts, x, index):
  hidden = np.maximum(x @ np.float64(experts.w_in[index]), 0) ** 2
  return hidden @ np.float64(experts.w_out[index])


def _soft(experts, x, logits):
  """All experts, weighted by softmax, as a plain differentiable einsum."""
  hidden = jnp.square(jax.nn.relu(jnp.einsum("nd,edf->nef", x, experts.w_in)))
  outputs = jnp.einsum("nef,efd->ned", hidden, experts.w_out)
  return jnp.einsum("ned,ne->nd", outputs, jax.nn.softmax(logits))


def test_routed_equals_a_loop_over_tokens(case):
  experts, x, logits = case
  routing = moe.top_k(logits, 2)
  out = jax.jit(moe.routed)(experts, x, routing)
  for n in range(NUM_TOKENS):
    expected = sum(
      np.float64(gate) * _expert(experts, np.float64(x[n]), expert)
      for expert, gate in zip(
        routing.expert_ids[n], routing.gates[n], strict=True
      )
    )
    # Float32 sums of at most 8 products, values of about 1.
    np.testing.assert_allclose(out[n], expected, rtol=1e-5, atol=1e-5)


def test_all_experts_are_the_soft_mixture_with_its_gradients(case):
  experts, x, logits = case

  def routed(experts, x, logits):
    return moe.routed(experts, x, moe.top_k(logits, NUM_EXPERTS))

  out, pullback = jax.vjp(jax.jit(routed), *case)
  expected, expected_pullback = jax.vjp(jax.jit(_soft), *case)
  np.testing.assert_allclose(out, expected, rtol=1e-5, atol=1e-5)
  cotangent = jax.random.normal(jax.random.key(4), out.shape)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5),
    pullback(cotangent),
    expected_pullback(cotangent),
  )


def test_sparse_gradient_equals_the_masked_soft_one(case):
  experts, x, logits = case
  _, chosen = jax.lax.top_k(logits, 2)
  is_chosen = jax.nn.one_hot(chosen, NUM_EXPERTS).sum(1) > 0

  def routed(experts, x, logits):
    return jnp.sum(jnp.sin(moe.routed(experts, x, moe.top_k(logits, 2))))

  def masked(experts, x, logits):
    logits = jnp.where(is_chosen, logits, -1e9)
    return jnp.sum(jnp.sin(_soft(experts, x, logits)))

  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5),
    jax.jit(jax.grad(routed, argnums=(0, 1, 2)))(*case),
    jax.jit(jax.grad(masked, argnums=(0, 1, 2)))(*case),
  )


def test_merged_with_one_hot_is_routed_to_that_expert(case):
  experts, x, _ = case
  one_hot = jnp.eye(NUM_EXPERTS)[1]
  logits = jnp.broadcast_to(50 * one_hot[None], (NUM_TOKENS, NUM_EXPERTS))
  np.testing.assert_allclose(
    moe.merged(experts, x, one_hot),
    moe.routed(experts, x, moe.top_k(logits, 1)),
    rtol=1e-5,
    atol=1e-6,
  )
