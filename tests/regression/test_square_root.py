"""The square root against NumPy's float64 inverse."""

import jax
import jax.numpy as jnp
import numpy as np

from tanbr_jax.regression import square_root


def _example():
  rng = np.random.default_rng(0)
  precision = np.asarray([0.5, 1.0, 2.0, 4.0, 1.0], np.float32)
  rows = rng.standard_normal((12, 5)).astype(np.float32)
  root, gains = square_root.init(precision), []
  for row in rows:
    root, gain = square_root.update(root, row, 0.7)
    gains.append(gain)
  return precision, rows, root, gains


def test_the_square_is_the_inverse_and_the_gain_is_its_product():
  precision, rows, root, gains = _example()
  gram = np.diag(precision.astype(np.float64))
  weight = np.float64(np.float32(0.7))
  for row, gain in zip(rows.astype(np.float64), gains, strict=True):
    gram += weight * np.outer(row, row)
    # A dozen float32 updates of a well-conditioned matrix.
    np.testing.assert_allclose(
      gain, weight * np.linalg.solve(gram, row), rtol=1e-4, atol=1e-6
    )
  s = np.asarray(root.high, np.float64) + np.asarray(root.low, np.float64)
  np.testing.assert_allclose(s @ s.T, np.linalg.inv(gram), atol=1e-6)


def test_whiten_and_colour_are_the_two_products():
  _, rows, root, _ = _example()
  s = np.asarray(root.high, np.float64) + np.asarray(root.low, np.float64)
  np.testing.assert_allclose(
    square_root.whiten(root, rows[0]), s.T @ rows[0], atol=1e-6
  )
  np.testing.assert_allclose(
    square_root.colour(root, rows[0]), s @ rows[0], atol=1e-6
  )


def test_colour_samples_the_inverse_as_covariance():
  _, _, root, _ = _example()
  noise = jax.random.normal(jax.random.key(0), (20_000, 5))
  samples = jax.vmap(square_root.colour, in_axes=(None, 0))(root, noise)
  s = np.asarray(root.high)
  scale = np.max(s @ s.T)
  # The deviation of a sample covariance is at most sqrt(2 / 20,000) = 1 % of
  # the largest variance; four of them.
  np.testing.assert_allclose(
    np.cov(np.asarray(samples).T), s @ s.T, atol=0.04 * scale
  )


def test_compensated_add_keeps_what_a_plain_sum_drops():
  # 1e-8 is below half a unit in the last place of 1: a plain sum stays at 1.
  def step(carry, _):
    return square_root.compensated_add(*carry, jnp.float32(1e-8)), None

  start = (jnp.float32(1), jnp.float32(0))
  (high, low), _ = jax.jit(lambda s: jax.lax.scan(step, s, None, 10_000))(start)
  total = np.float64(high) + np.float64(low)
  np.testing.assert_allclose(total, 1 + 1e-4, rtol=1e-9)
