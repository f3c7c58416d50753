import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tanbr_jax.simplex.search import maximise_on_simplex


def _quadratic(optimum, x):
  return -jnp.sum(jnp.square(x - optimum))


def test_finds_an_interior_optimum_of_a_concave_objective():
  optimum = jnp.array([0.2, 0.5, 0.3])
  x, value = jax.jit(maximise_on_simplex, static_argnames="steps")(
    jax.tree_util.Partial(_quadratic, optimum), jnp.eye(3), steps=300
  )
  # The distance of the point that Adam settles on, at these settings.
  np.testing.assert_allclose(x, optimum, atol=5e-3)
  np.testing.assert_allclose(value, 0.0, atol=1e-4)


def test_finds_a_vertex():
  x, _ = maximise_on_simplex(lambda x: x[1], jnp.full((1, 3), 1 / 3))
  assert x[1] > 0.99


def test_the_best_of_several_starts_wins():
  # Two separated peaks; the lower one catches whoever starts beside it.
  def peaks(x):
    high = 2 * jnp.exp(-40 * jnp.square(x[0] - 0.9))
    return high + jnp.exp(-40 * jnp.square(x[0] - 0.1))

  starts = jnp.array([[0.1, 0.9], [0.8, 0.2]])
  x, value = maximise_on_simplex(peaks, starts, steps=100)
  assert x[0] == pytest.approx(0.9, abs=0.02)
  assert float(value) == pytest.approx(2.0, abs=0.01)
  assert float(peaks(x)) == pytest.approx(float(value), rel=1e-5)


def test_a_start_that_is_not_finite_never_wins():
  def broken(x):
    return jnp.where(x[0] > 0.6, jnp.nan, x[0])

  starts = jnp.array([[0.9, 0.1], [0.3, 0.7]])
  _, value = maximise_on_simplex(broken, starts, steps=10)
  assert np.isfinite(value)


def test_refuses_bad_starts():
  with pytest.raises(ValueError, match=r"\(3,\), steps=5"):
    maximise_on_simplex(lambda x: x[0], jnp.ones(3), steps=5)
