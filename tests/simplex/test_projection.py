"""Projections against the sorting rule, bisection and SLSQP."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize

from tanbr_jax.simplex import projection


def problems(num_experts, num_problems, seed=0):
  """Random points and feasible boxes: a point of the simplex is in each."""
  rng = np.random.default_rng(seed)
  shape = [num_problems, num_experts]
  inside = rng.dirichlet([0.5] * num_experts, num_problems)
  lower = inside * rng.uniform(size=shape) * (rng.uniform(size=shape) < 0.5)
  upper = inside + (1 - inside) * rng.uniform(size=shape) ** 3
  point = rng.normal(0.3, 0.6, shape)
  return [array.astype(np.float32) for array in (point, lower, upper)]


def projected(point, lower, upper):
  def one(point, lower, upper):
    return projection.project_on_box(point, lower=lower, upper=upper)

  return np.asarray(jax.jit(jax.vmap(one))(point, lower, upper))


def bisected(point, lower, upper):
  """The same in float64 by bisection on the shift."""
  point, lower, upper = (a.astype(np.float64) for a in (point, lower, upper))
  left, right = (point - upper).min(), (point - lower).max()
  for _ in range(100):
    shift = (left + right) / 2
    if np.clip(point - shift, lower, upper).sum() > 1:
      left = shift
    else:
      right = shift
  return np.clip(point - (left + right) / 2, lower, upper)


@pytest.mark.parametrize("num_experts", [2, 8, 192])
def test_equals_bisection(num_experts):
  point, lower, upper = problems(num_experts, 50)
  x = projected(point, lower, upper)
  assert (x >= lower).all() and (x <= upper).all()
  # Sums of up to 192 float32 numbers.
  np.testing.assert_allclose(x.sum(axis=1), 1, atol=1e-6)
  expected = [bisected(*args) for args in zip(point, lower, upper, strict=True)]
  # Rounding of a point of magnitude 2.
  np.testing.assert_allclose(x, expected, atol=1e-6)


def test_equals_a_solver():
  for point, lower, upper in zip(*problems(5, 10, seed=1), strict=True):
    solution = scipy.optimize.minimize(
      lambda x, point=point: ((x - point.astype(np.float64)) ** 2).sum(),
      x0=(lower + upper).astype(np.float64) / 2,
      method="SLSQP",
      bounds=list(zip(lower.tolist(), upper.tolist(), strict=True)),
      constraints=dict(type="eq", fun=lambda x: x.sum() - 1),
      options=dict(ftol=1e-12),
    )
    assert solution.success
    x = projected(point[None], lower[None], upper[None])[0]
    # SLSQP's own accuracy is about the root of its tolerance.
    np.testing.assert_allclose(x, solution.x, atol=1e-5)


def test_known_by_hand():
  # The centre of the cube goes to the centre of the simplex; a box that holds
  # one point of it gives that point; a point of the simplex stays.
  x = projected(
    np.float32([[0.5] * 4, [0.3] * 4, [0.1, 0.2, 0.3, 0.4]]),
    np.zeros([3, 4], np.float32),
    np.float32([[1] * 4, [0.25] * 4, [1] * 4]),
  )
  np.testing.assert_allclose(
    x, [[0.25] * 4, [0.25] * 4, [0.1, 0.2, 0.3, 0.4]], atol=1e-7
  )


def test_sum_does_not_drift_with_many_experts():
  # All 192 coordinates share the rounding of one shift near 1/2: without its
  # correction the sum would be off by up to 192 * 2^-25 = 6e-6.
  rng = np.random.default_rng(2)
  point = (0.5 + 0.002 * rng.uniform(size=[20, 192])).astype(np.float32)
  x = projected(point, np.zeros_like(point), np.ones_like(point))
  np.testing.assert_allclose(x.sum(axis=1, dtype=np.float64), 1, atol=1e-6)


def numpy_projection(point):
  """The simplex by the sorting rule, float64."""
  ordered = np.sort(point)[::-1]
  taus = (np.cumsum(ordered) - 1) / np.arange(1, point.size + 1)
  tau = taus[np.flatnonzero(ordered > taus)[-1]]
  return np.maximum(point - tau, 0)


def test_projections_on_the_simplex_are_those_of_the_sorting_rule():
  points = np.random.default_rng(1).normal(size=(50, 7))
  points[0] = 0.0
  points[1, 1:4] = -np.inf
  expected = [numpy_projection(point) for point in points]
  points = jnp.asarray(points, jnp.float32)
  found = jax.vmap(projection.project)(points)
  np.testing.assert_allclose(found, expected, atol=1e-6)
  found = projection.project_by_sorting(points)
  np.testing.assert_allclose(found, expected, atol=1e-6)
