"""Ascent on the simplex against a closed form and brute force."""

import jax
import jax.numpy as jnp
import numpy as np

from tanbr_jax.simplex.ascent import Ascent


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
