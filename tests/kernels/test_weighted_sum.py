import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tanbr_jax import kernels


def test_equals_a_loop_in_float64():
  rng = np.random.default_rng(0)
  experts = rng.normal(size=(5, 3, 4)).astype(np.float32)
  weights = rng.dirichlet(np.ones(5)).astype(np.float32)
  expected = np.zeros((3, 4))
  for weight, expert in zip(weights, experts, strict=True):
    expected += np.float64(weight) * expert
  merged = kernels.weighted_sum(jnp.array(experts), jnp.array(weights))
  # Five float32 products and sums of values of about 1.
  np.testing.assert_allclose(merged, expected, atol=1e-6)


def test_accumulates_bfloat16_in_float32():
  # In bfloat16 256 + 1 is 256, so adding the small terms one by one to the
  # large one would lose them all; their sum 8 is representable.
  experts = jnp.concatenate([jnp.full((1, 2), 256.0), jnp.ones((8, 2))])
  merged = kernels.weighted_sum(experts.astype(jnp.bfloat16), jnp.ones(9))
  assert merged.dtype == jnp.bfloat16
  np.testing.assert_array_equal(merged.astype(jnp.float32), [264.0, 264.0])


def test_gradients_are_outer_and_inner_products():
  rng = np.random.default_rng(1)
  experts = rng.normal(size=(3, 2, 2)).astype(np.float32)
  weights = rng.dirichlet(np.ones(3)).astype(np.float32)
  cotangent = rng.normal(size=(2, 2)).astype(np.float32)
  _, pullback = jax.vjp(
    kernels.weighted_sum, jnp.array(experts), jnp.array(weights)
  )
  experts_grad, weights_grad = pullback(jnp.array(cotangent))
  np.testing.assert_allclose(
    experts_grad, weights[:, None, None] * cotangent[None], rtol=1e-6
  )
  np.testing.assert_allclose(
    weights_grad, (experts * cotangent[None]).sum((1, 2)), rtol=1e-5
  )


def test_refuses_what_it_cannot_do():
  with pytest.raises(ValueError, match=r"\(3,\).*\(2, 4\)"):
    kernels.weighted_sum(jnp.ones((2, 4)), jnp.ones(3))
  with pytest.raises(ValueError, match=r"one of .*'xla'.*'fast'"):
    kernels.weighted_sum(jnp.ones((2, 4)), jnp.ones(2), implementation="fast")
