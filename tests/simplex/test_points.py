"""Draws against the moments of a Dirichlet; checks at their tolerance."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tanbr_jax.simplex import points

SHAPE = (20_000, 4)
DRAWS = {
  0.3: lambda key: points.dirichlet(key, jnp.float32(0.3), SHAPE),
  0.5: lambda key: points.dirichlet_half(key, SHAPE),
  1.0: lambda key: points.dirichlet_one(key, SHAPE),
}


@pytest.mark.parametrize("concentration", DRAWS)
def test_draws_have_the_moments_of_a_dirichlet(concentration):
  draws = DRAWS[concentration](jax.random.key(0))
  assert draws.shape == SHAPE and draws.dtype == jnp.float32
  np.testing.assert_allclose(draws.sum(-1), 1.0, atol=1e-6)
  # Mean 1 / E, variance (1 / E) (1 - 1 / E) / (E c + 1); 20,000 draws are right
  # to .25 % of the mean and 2 % of the variance.
  np.testing.assert_allclose(draws.mean(0), 0.25, rtol=0.03)
  variance = 0.25 * 0.75 / (4 * concentration + 1)
  np.testing.assert_allclose(draws.var(0), variance, rtol=0.06)


def test_an_error_of_rounding_is_on_the_simplex():
  almost = np.array([0.5 + 9e-5, 0.5, 0.0])
  assert points.is_on_simplex(almost)
  assert points.is_on_simplex(almost - [0.0, 0.0, 9e-5])
  assert not points.is_on_simplex(almost + [2e-5, 0.0, 0.0])
  assert not points.is_on_simplex(np.array([0.5 + 2e-4, 0.5, -2e-4]))
  # In bfloat16 thirds are .3340 each, 1.002 together.
  assert points.is_on_simplex(jnp.full(3, 1 / 3, jnp.bfloat16))
  assert not points.is_on_simplex(np.full(3, 0.334))
  both = points.is_on_simplex(np.array([[1.0, 0.0], [np.nan, 1.0]]))
  np.testing.assert_array_equal(both, [True, False])


def test_check_returns_float32_and_names_the_first_row_that_is_off():
  checked = points.check_simplex("x", [[1, 0], [0.5, 0.5]])
  assert checked.dtype == jnp.float32 and checked.shape == (2, 2)
  message = r"x must lie on .* got \[0.7, 0.5\] with sum 1.2 at row 1"
  with pytest.raises(ValueError, match=message) as error:
    points.check_simplex("x", [[1, 0], [0.7, 0.5], [2, 0]])
  assert "\n" not in str(error.value)
  with pytest.raises(ValueError, match="got a traced float32"):
    jax.jit(lambda x: points.check_simplex("x", x))(jnp.full(2, 0.5))
