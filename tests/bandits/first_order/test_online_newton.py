"""Online Newton steps against a loop in float64 with a projection by scipy."""

import first_order_plays as plays
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import optimize

from tanbr_jax import bandits
from tanbr_jax.bandits.first_order import online_newton
from tanbr_jax.simplex.projection import project

RNG = np.random.default_rng(2)


def projected(point, matrix):
  """The projection in A's norm as a non-negative least-squares problem.

  |L'(x - y)|^2 with A = L L', and a heavy row for sum x = 1.
  """
  root = np.linalg.cholesky(matrix).T
  heavy = 1e4 * np.sqrt(np.trace(matrix))
  rows = np.vstack([root, heavy * np.ones(len(point))])
  weights, _ = optimize.nnls(rows, np.append(root @ point, heavy))
  return weights / weights.sum()


def test_projection_is_the_least_squares_one():
  project_in_norm = jax.jit(online_newton.project_in_norm)
  for condition in (1.0, 1e2, 1e4):
    for _ in range(5):
      turn, _ = np.linalg.qr(RNG.normal(size=(5, 5)))
      matrix = turn @ np.diag(np.geomspace(1, condition, 5)) @ turn.T
      point = np.full(5, 0.2) + RNG.normal(size=5) * RNG.choice([0.1, 1, 10])
      point += (1 - point.sum()) / 5
      found = project_in_norm(
        jnp.asarray(point, jnp.float32), jnp.asarray(matrix, jnp.float32)
      )
      # Errors of x^2 weighted by A are what is least: with eigenvalues down to
      # 1 / condition of the mean one, float32 leaves 6e-8 * condition.
      np.testing.assert_allclose(
        found, projected(point, matrix), atol=2e-5 + 1e-7 * condition
      )


def test_projection_in_the_plain_norm_is_the_plain_one():
  point = np.array([0.9, 0.4, -0.1, -0.2], np.float32)
  found = online_newton.project_in_norm(point, jnp.eye(4, dtype=jnp.float32))
  np.testing.assert_allclose(found, project(point), atol=1e-5)


@pytest.mark.parametrize("contextual", [False, True])
def test_steps_are_those_of_a_loop(contextual):
  num_tasks = 2 if contextual else 1
  gradients = plays.centred(RNG.uniform(-1, 1, (30, 4)))
  mixes = RNG.dirichlet(np.ones(num_tasks), 30)
  bandit = bandits.online_newton(
    num_experts=4,
    num_tasks=num_tasks,
    learning_rate=0.8,
    regularisation=0.5,
    forgetting=0.95,
    contextual=contextual,
    gradient_scale=1.0,
  )
  rows, played = np.full((num_tasks, 4), 0.25), []
  squares = np.zeros((num_tasks, 4, 4))
  for gradient, mix in zip(gradients, mixes, strict=True):
    played.append(mix @ rows)
    for row in range(num_tasks):
      g = mix[row] * gradient
      squares[row] = 0.95 * squares[row] + np.outer(g, g)
      matrix = 0.5 * np.eye(4) + squares[row]
      rows[row] = projected(
        rows[row] + 0.8 * np.linalg.solve(matrix, g), matrix
      )
  # The projections' errors, see above, at conditions of about 20.
  np.testing.assert_allclose(
    plays.play_linear(bandit, gradients, mixes), played, atol=1e-4
  )


def test_it_finds_the_optimum_of_a_concave_reward():
  centres = np.array([[0.6, 0.2, 0.15, 0.05]], np.float32)
  bandit = bandits.online_newton(num_experts=4, num_tasks=1, learning_rate=0.2)
  weights = plays.climb_quadratic(
    bandit, centres, np.ones((200, 1), np.float32)
  )
  np.testing.assert_allclose(weights[-1], centres[0], atol=1e-3)


@pytest.mark.parametrize(
  "options, words",
  [
    ({"regularisation": 0.0}, "regularisation=0.0"),
    ({"forgetting": 0.0}, "forgetting=0.0"),
    ({"forgetting": 1.5}, "forgetting=1.5"),
  ],
)
def test_bad_numbers_are_refused(options, words):
  with pytest.raises(ValueError, match=words):
    bandits.online_newton(num_experts=4, num_tasks=1, **options)
