"""The TPU kernel in Pallas' interpreter; the same shapes run on a TPU."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from plain_products import loop

from tanbr_jax import kernels
from tanbr_jax.kernels import implementations, mosaic_tpu
from tanbr_jax.kernels.grouped_matmul import _PRIMALS, _on


@pytest.fixture
def in_interpreter(monkeypatch):
  """Lets `implementation="mosaic_tpu"` run on a CPU."""
  kernel = functools.partial(mosaic_tpu.grouped_matmul, interpret=True)
  monkeypatch.setitem(_PRIMALS, "mosaic_tpu", _on("cpu", kernel))
  monkeypatch.setattr(implementations, "platform", lambda: "tpu")


def _problem(num_rows, sizes, dtype=np.float32):
  rng = np.random.default_rng(0)
  lhs = rng.normal(size=(num_rows, 5)).astype(dtype)
  rhs = rng.normal(size=(len(sizes), 5, 6)).astype(dtype)
  grad = rng.normal(size=(num_rows, 6)).astype(dtype)
  lhs[sum(sizes) :], grad[sum(sizes) :] = np.nan, np.nan
  return lhs, rhs, np.array(sizes, np.int32), grad


def test_values_and_gradients_equal_a_loop(in_interpreter):
  # Groups that begin inside a tile, an empty one, and a tail.
  lhs, rhs, sizes, grad = _problem(37, [3, 19, 0, 9])

  @jax.jit
  def run(lhs, rhs, sizes, grad):
    out, pullback = jax.vjp(
      lambda lhs, rhs: kernels.grouped_matmul(
        lhs, rhs, sizes, implementation="mosaic_tpu"
      ),
      lhs,
      rhs,
    )
    return out, *pullback(grad)

  # Sums of at most 19 float32 products of values of about 1.
  for result, expected in zip(
    run(lhs, rhs, sizes, grad), loop(lhs, rhs, sizes, grad), strict=True
  ):
    np.testing.assert_allclose(result, expected, atol=2e-5)


@pytest.mark.parametrize(("num_rows", "sizes"), [(1, [0, 1]), (9, [0, 0])])
def test_bfloat16_and_other_sizes(in_interpreter, num_rows, sizes):
  lhs, rhs, sizes, grad = _problem(num_rows, sizes, jnp.bfloat16)
  out = kernels.grouped_matmul(
    jnp.array(lhs),
    jnp.array(rhs),
    jnp.array(sizes),
    implementation="mosaic_tpu",
  )
  expected, _, _ = loop(lhs, rhs, sizes, grad)
  assert out.dtype == jnp.bfloat16
  # One rounding, by 2**-9, of a float32 sum of five.
  np.testing.assert_allclose(
    np.array(out, np.float64), expected, rtol=2**-8, atol=1e-5
  )


def test_says_why_not():
  problem = _problem(8, [4, 4])[:3]
  assert mosaic_tpu.why_not(*problem).endswith("the default device is a cpu")


def test_says_why_not_on_a_tpu(monkeypatch):
  monkeypatch.setattr(implementations, "platform", lambda: "tpu")
  lhs, rhs, sizes, _ = _problem(8, [4, 4])
  assert mosaic_tpu.why_not(lhs, rhs, sizes) is None
  halves = lhs.astype(np.float16), rhs.astype(np.float16), sizes
  assert mosaic_tpu.why_not(*halves).endswith("got float16")
  assert "lhs (0, 5)" in mosaic_tpu.why_not(lhs[:0], rhs, sizes)
