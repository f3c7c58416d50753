"""Ascent on the simplex against a closed form and brute force."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tanbr_jax.simplex.ascent import Ascent, climb


def numpy_projection(point):
  """Euclidean projection on the simplex by the sorting rule, float64."""
  ordered = np.sort(point)[::-1]
  sums = np.cumsum(ordered) - 1
  index = np.arange(1, point.size + 1)
  rank = index[ordered - sums / index > 0][-1]
  return np.maximum(point - sums[rank - 1] / rank, 0)


def test_reaches_the_optimum_of_a_concave_score():
  # The maximum of -|x - target|^2 over the simplex is target's projection.
  rng = np.random.default_rng(0)
  targets = rng.normal(0.2, 0.4, (16, 5))
  starts = rng.dirichlet(np.ones(5), 6).astype(np.float32)

  @jax.jit
  @jax.vmap
  def solve(target):
    def score(x):
      return -jnp.sum((x - target) ** 2)

    return Ascent(num_starts=3, num_steps=60)(
      score, jnp.asarray(starts), jnp.ones(6, bool)
    )

  best = solve(jnp.asarray(targets, jnp.float32))
  wanted = np.array([numpy_projection(target) for target in targets])
  values = -((wanted - targets) ** 2).sum(1)
  # The last step is 0.0025 long, and the score is flat to second order: 1e-4.
  np.testing.assert_allclose(best.value, values, atol=1e-4)
  np.testing.assert_allclose(best.weights, wanted, atol=5e-3)


def test_is_never_below_the_best_active_candidate_and_skips_inactive_ones():
  rng = np.random.default_rng(1)
  candidates = rng.dirichlet(np.ones(4), 9).astype(np.float32)
  frequencies = rng.normal(0, 9, (4, 3)).astype(np.float32)

  def score(x):
    return jnp.sum(jnp.sin(x @ frequencies))

  values = np.sin(candidates.astype(np.float64) @ frequencies).sum(1)
  active = np.ones(9, bool)
  active[np.argmax(values)] = False
  for steps in (0, 5):
    best = Ascent(num_starts=2, num_steps=steps)(
      score, jnp.asarray(candidates), jnp.asarray(active)
    )
    assert float(best.value) >= values[active].max() - 1e-5
    assert active[int(best.candidate)]
    if steps == 0:
      wanted = np.flatnonzero(active)[np.argmax(values[active])]
      assert int(best.candidate) == wanted


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_score_that_is_not_finite_never_wins(bad):
  def score(x):
    return jnp.where(x[0] > 0.6, bad, x[0])

  starts = jnp.array([[0.9, 0.1], [0.2, 0.8], [0.3, 0.7], [0.8, 0.2]])
  find = jax.jit(Ascent(num_starts=3, num_steps=30))
  run = jax.tree_util.Partial(score)
  best = find(run, starts, jnp.ones(4, bool))
  # 0.6 is reached to the length of the last steps.
  assert 0.58 < float(best.value) <= 0.6
  assert float(best.weights[0]) == pytest.approx(float(best.value), abs=1e-6)
  # Nothing finite is active: the first active one, and no value.
  none = find(run, starts[jnp.array([0, 3, 0, 3])], jnp.arange(4) > 0)
  assert none.value == -np.inf
  assert int(none.candidate) == 1
  np.testing.assert_array_equal(none.weights, starts[3])

  def values_and_slopes(points):
    return jax.vmap(jax.value_and_grad(score))(points)

  ends, values = climb(values_and_slopes, starts, num_steps=30, step_size=0.1)
  np.testing.assert_array_equal(values[jnp.array([0, 3])], [-np.inf] * 2)
  assert ((values[1:3] > 0.55) & (values[1:3] <= 0.6)).all()
  np.testing.assert_allclose(ends[1:3, 0], values[1:3], atol=1e-6)


def test_refuses_impossible_steps():
  with pytest.raises(ValueError, match="step_size=nan"):
    Ascent(step_size=float("nan"))
  with pytest.raises(ValueError, match="num_starts=0"):
    Ascent(num_starts=0)
