import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tanbr_jax import kernels
from tanbr_jax.kernels import implementations
from tanbr_jax.kernels.weighted_sum import (
  _as_product,
  _on_accelerator,
  _on_cpu,
)


def _draw(num_experts, num_results, shape=(3, 4)):
  rng = np.random.default_rng(0)
  experts = rng.normal(size=(num_experts, *shape)).astype(np.float32)
  weights = rng.dirichlet(np.ones(num_experts), num_results)
  return experts, weights.astype(np.float32)


def _loop(experts, weights):
  """[R, ...] in float64; an expert of weight 0 is left out."""
  out = np.zeros((len(weights), *experts.shape[1:]))
  for r, e in np.argwhere(weights != 0):
    out[r] += np.float64(weights[r, e]) * experts[e]
  return out


# More experts than are unrolled, one result and several, no axis of their own.
@pytest.mark.parametrize(
  ("num_experts", "num_results", "shape"),
  [
    (5, 1, (3, 4)),
    (5, 3, (3, 4)),
    (20, 3, (7,)),
    (20, 1, (2, 1, 3)),
    (1, 1, ()),
  ],
)
def test_equals_a_loop_in_float64(num_experts, num_results, shape):
  experts, weights = _draw(num_experts, num_results, shape)
  expected = _loop(experts, weights)
  many = jax.jit(kernels.weighted_sum)(experts, weights)
  # Twenty float32 products and sums of values of about 1.
  np.testing.assert_allclose(many, expected, atol=2e-6)
  one = jax.jit(kernels.weighted_sum)(experts, weights[0])
  np.testing.assert_allclose(one, expected[0], atol=2e-6)


def test_accumulates_bfloat16_in_float32():
  # In bfloat16 256 + 1 is 256, so adding the small terms one by one to the
  # large one would lose them all; their sum 8 is representable.
  experts = jnp.concatenate([jnp.full((1, 2), 256.0), jnp.ones((8, 2))])
  merged = kernels.weighted_sum(experts.astype(jnp.bfloat16), jnp.ones((3, 9)))
  assert merged.dtype == jnp.bfloat16
  np.testing.assert_array_equal(
    merged.astype(jnp.float32), np.full((3, 2), 264.0)
  )


@pytest.mark.parametrize("num_results", [1, 3])
@pytest.mark.parametrize("form", [_on_cpu, _on_accelerator, _as_product])
def test_every_form_leaves_experts_of_weight_zero_out(form, num_results):
  # Twenty experts, so that several results are a product on a CPU too.
  experts, weights = _draw(20, num_results)
  experts[3, 0, 0], experts[7, 1, 1], experts[8, 2, 2] = np.nan, np.inf, np.nan
  weights[:, [3, 7]] = 0.0
  weights[0, 8] = 0.0
  expected = _loop(experts, weights)
  assert np.isfinite(expected[0]).all()
  assert np.isnan(expected[1:, 2, 2]).all()
  np.testing.assert_allclose(
    jax.jit(form)(experts, weights), expected, atol=2e-6
  )


@pytest.mark.parametrize("num_results", [None, 2])
def test_gradients_are_outer_and_inner_products(num_results):
  experts, weights = _draw(3, 2)
  experts[2, 0, 0] = np.nan
  weights[:, 1:] = 0.0
  cotangent = np.random.default_rng(1).normal(size=(2, 3, 4))
  cotangent = cotangent.astype(np.float32)
  if num_results is None:
    weights, cotangent = weights[0], cotangent[0]

  @jax.jit
  def run(experts, weights, cotangent):
    _, pullback = jax.vjp(kernels.weighted_sum, experts, weights)
    return pullback(cotangent)

  experts_grad, weights_grad = run(experts, weights, cotangent)
  rows, grads = np.atleast_2d(weights), cotangent.reshape(-1, 3, 4)
  np.testing.assert_allclose(
    experts_grad, np.einsum("re,rij->eij", rows, grads), atol=1e-6
  )
  # Weights of 0 have a gradient, and so a search can leave them; it is NaN
  # for an expert that holds one.
  expected = np.einsum("rij,eij->re", grads.astype(np.float64), experts)
  assert np.isnan(expected[:, 2]).all()
  np.testing.assert_allclose(
    np.atleast_2d(weights_grad), expected, atol=5e-6, rtol=0
  )


def test_vmap_over_weights_is_one_call_and_over_experts_is_not(monkeypatch):
  # A shape of its own, so that it is not traced already.
  experts, weights = _draw(5, 6, shape=(4, 3))
  expected = _loop(experts, weights)
  weights = jnp.array(weights)
  select, shapes = implementations.select, []

  def spy(name, table, experts, weights):
    shapes.append((experts.shape, weights.shape))
    return select(name, table, experts, weights)

  monkeypatch.setattr(implementations, "select", spy)
  nested = weights.reshape(2, 3, 5)
  out = jax.vmap(jax.vmap(kernels.weighted_sum, (None, 0)), (None, 0))(
    experts, nested
  )
  assert ((5, 4, 3), (6, 5)) in shapes
  np.testing.assert_allclose(out.reshape(6, 4, 3), expected, atol=2e-6)
  layers = jnp.stack([experts, 2 * experts])
  out = jax.vmap(kernels.weighted_sum)(layers, weights[:2])
  np.testing.assert_allclose(out[1], 2 * expected[1], atol=2e-6)


def test_the_kernel_takes_several_results_and_vmap_makes_them(hopper):
  # A shape of its own: what was traced for others in XLA is not traced again.
  experts, weights = _draw(5, 3, shape=(3, 5))

  @jax.jit
  def run(experts, weights):
    merged, pullback = jax.vjp(
      jax.vmap(kernels.weighted_sum, (None, 0)), experts, weights
    )
    return merged, *pullback(jnp.ones_like(merged))

  merged, experts_grad, weights_grad = run(experts, weights)
  assert "weighted_sum" in hopper
  np.testing.assert_allclose(merged, _loop(experts, weights), atol=2e-6)
  np.testing.assert_allclose(
    experts_grad,
    np.broadcast_to(weights.sum(0)[:, None, None], experts.shape),
    rtol=1e-5,
  )
  expected = np.broadcast_to(experts.sum((1, 2)), weights.shape)
  np.testing.assert_allclose(weights_grad, expected, atol=1e-5)
  num_traces = len(hopper)
  kernels.weighted_sum(experts, jnp.array(weights[0]))
  assert len(hopper) == num_traces


def test_refuses_what_it_cannot_do():
  with pytest.raises(ValueError, match=r"\(3,\).*\(2, 4\)"):
    kernels.weighted_sum(jnp.ones((2, 4)), jnp.ones(3))
  with pytest.raises(ValueError, match=r"\(1, 1, 2\).*\(2, 4\)"):
    kernels.weighted_sum(jnp.ones((2, 4)), jnp.ones((1, 1, 2)))
  with pytest.raises(ValueError, match=r"not empty.*\(0,\).*\(0, 4\)"):
    kernels.weighted_sum(jnp.ones((0, 4)), jnp.ones(0))
  with pytest.raises(ValueError, match=r"floating experts.*int32\(2, 4\)"):
    kernels.weighted_sum(jnp.ones((2, 4), jnp.int32), jnp.ones(2))
  with pytest.raises(ValueError, match="one of .*'xla'.*'fast'"):
    kernels.weighted_sum(jnp.ones((2, 4)), jnp.ones(2), implementation="fast")
  with pytest.raises(ValueError, match="'mosaic_gpu' cannot run: .* a cpu"):
    kernels.weighted_sum(
      jnp.ones((2, 4)), jnp.ones(2), implementation="mosaic_gpu"
    )
