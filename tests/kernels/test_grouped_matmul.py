import jax
import jax.numpy as jnp
import numpy as np
import pytest
from plain_products import loop

from tanbr_jax import kernels
from tanbr_jax.kernels.grouped_matmul import _PRIMALS, _TABLE, _entry, _on

# name -> (rows, group sizes). The block is 8 rows in all of them.
CASES = {
  "even": (32, [8, 8, 8, 8]),
  "empty groups and a tail": (37, [0, 19, 0, 9]),
  "not a multiple of the block": (29, [3, 11, 1, 14]),
  "one group": (13, [13]),
  "nothing": (9, [0, 0]),
  "one row": (1, [0, 1, 0]),
}


def _draw(case):
  rows, sizes = CASES[case]
  rng = np.random.default_rng(2)
  lhs = rng.normal(size=(rows, 5)).astype(np.float32)
  rhs = rng.normal(size=(len(sizes), 5, 6)).astype(np.float32)
  grad = rng.normal(size=(rows, 6)).astype(np.float32)
  return lhs, rhs, np.array(sizes, np.int32), grad


def _run(lhs, rhs, sizes, grad, implementation=None):
  @jax.jit
  def run(lhs, rhs, sizes, grad):
    out, pullback = jax.vjp(
      lambda lhs, rhs: kernels.grouped_matmul(
        lhs, rhs, sizes, implementation=implementation
      ),
      lhs,
      rhs,
    )
    return out, *pullback(grad)

  return run(lhs, rhs, sizes, grad)


@pytest.mark.parametrize("case", CASES)
def test_values_and_gradients_equal_a_loop(case):
  problem = _draw(case)
  # Sums of at most 19 float32 products of values of about 1.
  for result, expected in zip(_run(*problem), loop(*problem), strict=True):
    np.testing.assert_allclose(result, expected, atol=2e-5)


def test_bfloat16_equals_a_loop_over_the_same_values():
  lhs, rhs, sizes, grad = _draw("empty groups and a tail")
  lhs, rhs, grad = (np.array(x, jnp.bfloat16) for x in (lhs, rhs, grad))
  results, expected = _run(lhs, rhs, sizes, grad), loop(lhs, rhs, sizes, grad)
  assert {x.dtype for x in results} == {np.dtype(jnp.bfloat16)}
  # Float32 sums rounded once, by 2**-9 of values up to 20.
  for result, value in zip(results, expected, strict=True):
    np.testing.assert_allclose(
      np.array(result, np.float64), value, rtol=2**-8, atol=1e-4
    )


def test_no_rows_at_all():
  lhs, rhs = np.zeros((0, 5), np.float32), np.ones((2, 5, 6), np.float32)
  out, _, rhs_grad = _run(
    lhs, rhs, np.zeros(2, np.int32), np.zeros((0, 6), "f")
  )
  assert out.shape == (0, 6)
  np.testing.assert_array_equal(rhs_grad, np.zeros((2, 5, 6)))


def test_rows_past_the_groups_are_never_read():
  lhs, rhs, sizes, grad = _draw("empty groups and a tail")
  expected = loop(lhs, rhs, sizes, grad)
  lhs[28:], grad[28:] = np.nan, np.inf
  for result, value in zip(_run(lhs, rhs, sizes, grad), expected, strict=True):
    np.testing.assert_allclose(result, value, atol=2e-5)


def test_vmap_over_problems_of_other_sizes():
  lhs, rhs, sizes, _ = _draw("not a multiple of the block")
  lhs, rhs = np.stack([lhs, 2 * lhs]), np.stack([rhs, -rhs])
  sizes = np.stack([sizes, sizes[::-1]])
  out = jax.jit(jax.vmap(kernels.grouped_matmul))(lhs, rhs, sizes)
  for i in range(2):
    expected, _, _ = loop(lhs[i], rhs[i], sizes[i], np.zeros((29, 6)))
    np.testing.assert_allclose(out[i], expected, atol=4e-5)


def _kernel_with_garbage_in_the_tail(lhs, rhs, group_sizes):
  out = kernels.grouped_matmul(lhs, rhs, group_sizes, implementation="xla")
  rows = jnp.arange(lhs.shape[0])[:, None]
  return jnp.where(rows < group_sizes.sum(), out, jnp.nan)


@pytest.mark.parametrize("takes_transposed", [True, False])
def test_a_kernel_trains_and_its_tail_is_zeroed(monkeypatch, takes_transposed):
  calls = []

  def kernel(*args):
    calls.append(args[1].shape)
    return _kernel_with_garbage_in_the_tail(*args)

  def why_not(lhs, rhs, group_sizes):
    return None if takes_transposed or rhs.shape[1] == 5 else "too long"

  monkeypatch.setitem(_PRIMALS, "mosaic_tpu", _on("cpu", kernel))
  monkeypatch.setitem(_TABLE, "mosaic_tpu", _entry("mosaic_tpu", why_not))
  problem = _draw("empty groups and a tail")
  results = _run(*problem, implementation="mosaic_tpu")
  for result, expected in zip(results, loop(*problem), strict=True):
    np.testing.assert_allclose(result, expected, atol=2e-5)
  assert ((4, 6, 5) in calls) == takes_transposed


def test_refuses_what_it_cannot_do():
  lhs, rhs, sizes, _ = (jnp.array(x) for x in _draw("even"))
  with pytest.raises(ValueError, match="one of .*'xla'.*'triton'"):
    kernels.grouped_matmul(lhs, rhs, sizes, implementation="triton")
  with pytest.raises(ValueError, match=r"\(32, 5\).*\(3, 5, 6\).*\(4,\)"):
    kernels.grouped_matmul(lhs, rhs[:3], sizes)
  with pytest.raises(ValueError, match=r"not empty.*rhs float32\(4, 5, 0\)"):
    kernels.grouped_matmul(lhs, rhs[:, :, :0], sizes)
  with pytest.raises(ValueError, match="bfloat16"):
    kernels.grouped_matmul(lhs.astype(jnp.bfloat16), rhs, sizes)
  with pytest.raises(ValueError, match=r"group_sizes float32\(4,\)"):
    kernels.grouped_matmul(lhs, rhs, sizes.astype(jnp.float32))
  for name in ("mosaic_gpu", "mosaic_tpu"):
    with pytest.raises(ValueError, match=f"'{name}' cannot run: .* is a cpu"):
      kernels.grouped_matmul(lhs, rhs, sizes, implementation=name)
