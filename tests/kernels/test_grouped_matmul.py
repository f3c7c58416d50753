import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tanbr_jax import kernels
from tanbr_jax.kernels.grouped_blocks import (
  _outer_batched,
  _outer_loop,
  _product_batched,
  _product_loop,
)

# name -> (rows, group sizes). The block is 8 rows in all of them.
CASES = {
  "even": (32, [8, 8, 8, 8]),
  "empty groups and a tail": (37, [0, 19, 0, 9]),
  "not a multiple of the block": (29, [3, 11, 1, 14]),
  "one group": (13, [13]),
  "nothing": (9, [0, 0]),
  "one row": (1, [0, 1, 0]),
}
FORMS = {
  "loop": (_product_loop, _outer_loop),
  "batched": (_product_batched, _outer_batched),
}


def _draw(case):
  rows, sizes = CASES[case]
  rng = np.random.default_rng(2)
  lhs = rng.normal(size=(rows, 5)).astype(np.float32)
  rhs = rng.normal(size=(len(sizes), 5, 6)).astype(np.float32)
  grad = rng.normal(size=(rows, 6)).astype(np.float32)
  return lhs, rhs, np.array(sizes, np.int32), grad


def _loop(lhs, rhs, sizes, grad):
  """Value and both gradients of sum(out * grad), row by row in float64."""
  out = np.zeros(grad.shape)
  lhs_grad, rhs_grad = np.zeros(lhs.shape), np.zeros(rhs.shape)
  for row, group in enumerate(np.repeat(np.arange(len(sizes)), sizes)):
    out[row] = lhs[row].astype(np.float64) @ rhs[group]
    lhs_grad[row] = rhs[group].astype(np.float64) @ grad[row]
    rhs_grad[group] += np.outer(lhs[row].astype(np.float64), grad[row])
  return out, lhs_grad, rhs_grad


@pytest.mark.parametrize("case", CASES)
def test_values_and_gradients_equal_a_loop(case):
  lhs, rhs, sizes, grad = _draw(case)

  @jax.jit
  def run(lhs, rhs, sizes, grad):
    out, pullback = jax.vjp(
      lambda lhs, rhs: kernels.grouped_matmul(lhs, rhs, sizes), lhs, rhs
    )
    return out, *pullback(grad)

  results = run(lhs, rhs, sizes, grad)
  # Sums of at most 19 float32 products of values of about 1.
  for result, expected in zip(
    results, _loop(lhs, rhs, sizes, grad), strict=True
  ):
    np.testing.assert_allclose(result, expected, atol=2e-5)


@pytest.mark.parametrize("case", ["empty groups and a tail", "one row"])
@pytest.mark.parametrize("form", FORMS)
def test_both_forms_equal_a_loop(form, case):
  # The batched form is what an accelerator runs; it is tested on a CPU too.
  lhs, rhs, sizes, grad = _draw(case)
  product, outer = FORMS[form]
  out, _, rhs_grad = _loop(lhs, rhs, sizes, grad)
  np.testing.assert_allclose(jax.jit(product)(lhs, rhs, sizes), out, atol=2e-5)
  np.testing.assert_allclose(
    jax.jit(outer)(lhs, grad, sizes), rhs_grad, atol=2e-5
  )


def test_rows_past_the_groups_are_never_read():
  lhs, rhs, sizes, _ = _draw("empty groups and a tail")
  lhs[28:] = np.nan
  out, pullback = jax.vjp(
    lambda rhs: kernels.grouped_matmul(lhs, rhs, sizes), jnp.array(rhs)
  )
  np.testing.assert_array_equal(out[28:], 0.0)
  assert np.isfinite(out).all()
  assert np.isfinite(pullback(jnp.ones_like(out))[0]).all()


def test_vmap_over_problems_of_other_sizes():
  lhs, rhs, sizes, _ = _draw("not a multiple of the block")
  lhs, rhs = np.stack([lhs, 2 * lhs]), np.stack([rhs, -rhs])
  sizes = np.stack([sizes, sizes[::-1]])
  out = jax.vmap(kernels.grouped_matmul)(lhs, rhs, jnp.array(sizes))
  for i in range(2):
    expected, _, _ = _loop(lhs[i], rhs[i], sizes[i], np.zeros((29, 6)))
    np.testing.assert_allclose(out[i], expected, atol=4e-5)


def test_refuses_what_it_cannot_do():
  lhs, rhs, sizes, _ = (jnp.array(x) for x in _draw("even"))
  with pytest.raises(ValueError, match=r"one of .*'xla'.*'triton'"):
    kernels.grouped_matmul(lhs, rhs, sizes, implementation="triton")
  with pytest.raises(ValueError, match=r"\(32, 5\).*\(3, 5, 6\).*\(4,\)"):
    kernels.grouped_matmul(lhs, rhs[:3], sizes)
  with pytest.raises(ValueError, match="bfloat16"):
    kernels.grouped_matmul(lhs.astype(jnp.bfloat16), rhs, sizes)
