"""Derivatives of the kernels, of both orders and in both modes."""

import derivatives
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tanbr_jax import kernels

SIZES = np.array([0, 5, 1, 3], np.int32)
ROWS, K, N = 11, 3, 4  # with a tail of two rows


def _draw(*shapes):
  rng = np.random.default_rng(4)
  return tuple(rng.normal(size=shape).astype(np.float32) for shape in shapes)


def _of_group():
  """[M, E], one where the row is the group's; nowhere in the tail."""
  groups = np.repeat(np.arange(len(SIZES)), SIZES)
  return np.pad(np.eye(len(SIZES), dtype=np.float32)[groups], ((0, 2), (0, 0)))


@pytest.mark.parametrize("form", ["[E]", "vmap"])
def test_weighted_sum(form):
  experts, weights = _draw((5, 2, 3), (2, 5))
  weights[:, 2] = 0.0  # the derivative there is like that anywhere else
  weighted_sum = kernels.weighted_sum
  if form == "[E]":
    weights = weights[0]
  if form == "vmap":
    weighted_sum = jax.vmap(weighted_sum, (None, 0))
  derivatives.check(
    lambda both: jnp.sum(jnp.sin(weighted_sum(*both))),
    lambda both: jnp.sum(jnp.sin(jnp.tensordot(both[1], both[0], 1))),
    (experts, weights),
  )


def test_hessian_in_the_weights_is_the_closed_form():
  experts, weights = _draw((4, 6), 4)
  found = jax.jit(
    jax.hessian(lambda w: jnp.sum(jnp.sin(kernels.weighted_sum(experts, w))))
  )(weights)
  # d2/dw dw' of sum_x sin(w . e_x) is - sum_x e_x e_x' sin(w . e_x).
  wide = experts.astype(np.float64)
  expected = -(wide * np.sin(weights @ wide)) @ wide.T
  # Sums of six float32 products of values of about 1.
  np.testing.assert_allclose(found, expected, atol=1e-5)


def test_an_expert_of_weight_zero_that_is_not_finite_has_its_own_slope_only():
  experts, weights = _draw((4, 6), 4)
  expected = experts.T.copy()
  experts[2, 1], weights[2] = np.nan, 0.0
  expected[:, 2] = experts[2]
  found = jax.jit(jax.jacfwd(kernels.weighted_sum, 1))(experts, weights)
  np.testing.assert_array_equal(found, expected)


def test_grouped_matmul():
  def reference(both):
    out = jnp.einsum("mk,me,ekn->mn", both[0], _of_group(), both[1])
    return jnp.sum(jnp.sin(out))

  derivatives.check(
    lambda both: jnp.sum(jnp.sin(kernels.grouped_matmul(*both, SIZES))),
    reference,
    _draw((ROWS, K), (4, K, N)),
  )


def _ffn(arrays):
  x, w_gate, w_in, w_out = arrays
  out = kernels.grouped_ffn(x, w_in, w_out, SIZES, w_gate=w_gate)
  return jnp.sum(jnp.sin(out))


def _ffn_reference(arrays):
  x, w_gate, w_in, w_out = arrays
  rows = jnp.einsum("md,me->med", x, _of_group())
  gate = jnp.einsum("med,edf->mf", rows, w_gate)
  hidden = jax.nn.silu(gate) * jnp.einsum("med,edf->mf", rows, w_in)
  out = jnp.einsum("mf,me,efd->md", hidden, _of_group(), w_out)
  return jnp.sum(jnp.sin(out))


def test_the_hopper_kernels(hopper):
  # In XLA the block is products that the test before has seen.
  derivatives.check(
    _ffn,
    _ffn_reference,
    _draw((ROWS, K), (4, K, N), (4, K, N), (4, N, K)),
    names=("slope, forward", "reverse over reverse"),
  )
  assert {"grouped_gated_matmul", "grouped_matmul"} <= set(hopper)
