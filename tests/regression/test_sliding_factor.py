"""The sliding inverse factor against float64 factors of each window."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tanbr_jax.regression import sliding_factor

M, T = 16, 400


def kernel(points, others):
  squares = ((points[:, None] - others[None]) ** 2).sum(-1)
  return np.exp(-squares / (2 * 0.7**2))


# The error of R grows as the condition number, at most M / noise: float32's
# 6e-8 times 160 and times 6e4, and a small factor for the sums.
@pytest.mark.parametrize("noise, rtol", [(0.1, 1e-4), (2.5e-4, 2e-2)])
def test_factor_is_that_of_the_window(noise, rtol):
  rng = np.random.default_rng(0)
  points = rng.dirichlet(np.ones(3), T)
  points[::3] = points[0]  # the same point again and again
  covariances = np.zeros((T, M), np.float32)
  for t in range(T):
    window = points[max(0, t - M + 1) : t]
    end = M - 1
    covariances[t, end - len(window) : end] = kernel(window, points[t : t + 1])[
      :, 0
    ]

  def step(factor, covariance):
    factor = sliding_factor.slide(
      factor, covariance, jnp.float32(1 + noise), jnp.float32(noise)
    )
    return factor, factor

  scan = jax.jit(
    lambda rows: jax.lax.scan(step, sliding_factor.init(M), rows)[1]
  )
  factors = np.asarray(scan(jnp.asarray(covariances)), np.float64)
  for t in (0, 5, M - 1, M, 3 * M, T - 1):
    window = points[max(0, t - M + 1) : t + 1]
    covariance = np.eye(M)
    size = len(window)
    covariance[M - size :, M - size :] = kernel(
      window, window
    ) + noise * np.eye(size)
    wanted = np.linalg.inv(np.linalg.cholesky(covariance))
    np.testing.assert_allclose(
      factors[t], wanted, atol=rtol * np.abs(wanted).max()
    )
