import importlib.util

import jax.numpy as jnp
import numpy as np
import pytest

from tanbr_jax import kernels
from tanbr_jax.kernels import tokamax


def _problem():
  rng = np.random.default_rng(0)
  lhs = jnp.array(rng.normal(size=(12, 5)), jnp.float32)
  rhs = jnp.array(rng.normal(size=(3, 5, 6)), jnp.float32)
  return lhs.at[9:].set(jnp.nan), rhs, jnp.array([2, 0, 7], jnp.int32)


def test_equals_a_loop():
  pytest.importorskip("tokamax")
  lhs, rhs, sizes = _problem()
  out = kernels.grouped_matmul(lhs, rhs, sizes, implementation="tokamax")
  expected = np.zeros((12, 6))
  for row, group in enumerate(np.repeat(np.arange(3), sizes)):
    expected[row] = np.array(lhs[row], np.float64) @ np.array(rhs[group])
  # Float32 sums of five products of values of about 1.
  np.testing.assert_allclose(out, expected, atol=5e-6)


def test_says_when_it_is_not_installed(monkeypatch):
  monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
  assert "is not installed" in tokamax.why_not()
  with pytest.raises(ValueError, match="'tokamax' cannot run: .*not installed"):
    kernels.grouped_matmul(*_problem(), implementation="tokamax")
