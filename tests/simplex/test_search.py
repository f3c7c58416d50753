import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tanbr_jax.simplex.search import best, maximise_on_simplex


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


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_never_wins_and_ends_no_ascent(bad):
  # Its maximum 0.6 is at the border of the bad part, which half of the
  # starts lie in and which the others step into.
  def broken(x):
    return jnp.where(x[0] > 0.6, bad, x[0])

  starts = jnp.array([[0.9, 0.1], [0.3, 0.7]])
  run = jax.jit(lambda starts: maximise_on_simplex(broken, starts, steps=60))
  x, value = run(starts)
  assert 0.55 < float(value) <= 0.6
  assert float(x[0]) == pytest.approx(float(value), abs=1e-6)
  x, value = run(starts[:1])
  np.testing.assert_array_equal(x, starts[0])
  assert value == -np.inf


def test_a_gradient_that_is_not_finite_does_not_end_an_ascent():
  # The slope of the root is infinite at 0.5 exactly, where the ascent begins.
  def score(x):
    return jnp.sqrt(jnp.abs(x[0] - 0.5)) + x[0]

  starts = jnp.array([[0.5, 0.5], [0.51, 0.49]])
  _, value = maximise_on_simplex(score, starts, steps=60)
  assert float(value) > 1.6  # 0.5 + sqrt(0.5) + 0.5 at the vertex


@pytest.mark.parametrize(
  ("values", "index"),
  [
    ([1.0, np.nan, 3.0, np.inf], 2),
    ([np.nan, -np.inf, -5.0, -5.0], 2),
    ([np.nan, np.inf], 0),
  ],
)
def test_best_is_the_first_largest_finite_one(values, index):
  assert int(best(jnp.array(values))) == index


def test_refuses_bad_starts():
  with pytest.raises(ValueError, match=r"\(3,\), steps=5"):
    maximise_on_simplex(lambda x: x[0], jnp.ones(3), steps=5)
  with pytest.raises(ValueError, match=r"R >= 1.*\(0, 3\)"):
    maximise_on_simplex(lambda x: x[0], jnp.ones((0, 3)))
  with pytest.raises(ValueError, match="learning_rate=nan"):
    maximise_on_simplex(
      lambda x: x[0], jnp.ones((1, 3)), learning_rate=float("nan")
    )
