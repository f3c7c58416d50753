"""Online Newton steps on the simplex, from gradients alone.

Hazan, Agarwal and Kale, "Logarithmic regret algorithms for online convex
optimization", Machine Learning 2007. Letters: V tasks, E experts, R rows (see
`learner`).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.linalg import cho_factor, cho_solve
from jax.tree_util import Partial

from tanbr_jax.bandits.base import Bandit, Shape
from tanbr_jax.bandits.first_order.learner import (
  Learner,
  describe_nothing,
  first_order_bandit,
  mix_rows,
  row_gradients,
  rows_shape,
)
from tanbr_jax.checks import ranges
from tanbr_jax.checks.ranges import AtLeastTwo, Chance, Count, Positive

# Steps of the interior-point projection. Each shortens the gap by about
# _CENTRING, from 1 to far below float32's digits of a weight.
_NUM_STEPS, _CENTRING, _TO_BOUNDARY = 24, 0.2, 0.99
_LEAST_GAP = 1e-9


class NewtonState(NamedTuple):
  """State of online Newton steps.

  Attributes:
    rows: [R, E] float32 on the simplex.
    squares: [R, E, E] float32, sum of g g', fading; A less its first value.
  """

  rows: jax.Array
  squares: jax.Array


class Numbers(NamedTuple):
  """Numbers of the step, traced.

  Attributes:
    learning_rate: [] eta, the paper's 1 / gamma.
    regularisation: [] epsilon, A before the first gradient.
    forgetting: [] factor of the sum of g g' each slot.
  """

  learning_rate: jax.Array
  regularisation: jax.Array
  forgetting: jax.Array


def project_in_norm(point: jax.Array, matrix: jax.Array) -> jax.Array:
  """Returns the x on the simplex with the least (x - y)' A (x - y).

  A primal-dual interior-point method, with as many steps in any case: the
  dual z >= 0 and the multiplier n of sum x = 1 solve A (x - y) = z + n, x z =
  0. An error of 1e-5 in x is reached for condition numbers of 1e4.

  Args:
    point: y [E].
    matrix: A [E, E], positive definite.
  """
  num_experts = point.shape[0]
  matrix = matrix * (num_experts / jnp.trace(matrix))

  def step(_, carry):
    weights, dual = carry
    # A smaller gap is aimed at, along the Newton direction of the conditions.
    gap = jnp.maximum(_CENTRING * jnp.mean(weights * dual), _LEAST_GAP)
    slope = _matvec(matrix, weights - point)
    system = matrix + jnp.diag(dual / weights)
    right = jnp.stack([gap / weights - slope, jnp.ones_like(weights)], axis=1)
    solved = cho_solve(cho_factor(system), right)
    multiplier = -jnp.sum(solved[:, 0]) / jnp.sum(solved[:, 1])
    move = solved[:, 0] + multiplier * solved[:, 1]
    dual_move = (gap - dual * move) / weights - dual
    # As far as both stay positive.
    weights = weights + _most(weights, move) * move
    dual = dual + _most(dual, dual_move) * dual_move
    return weights / jnp.sum(weights), dual

  # Made of the inputs, so that they vary over whatever mesh those do.
  start = jnp.full_like(point, 1 / num_experts)
  dual = jnp.full_like(point, 1.0) + 0 * matrix[0]
  weights, _ = jax.lax.fori_loop(
    0, _NUM_STEPS, step, (start + 0 * matrix[0], dual)
  )
  return jnp.where(jnp.all(point >= 0), point / jnp.sum(point), weights)


def _most(values: jax.Array, moves: jax.Array) -> jax.Array:
  """Returns the largest factor of `moves`, at most 1, that keeps positive."""
  ratios = jnp.where(moves < 0, -values / jnp.minimum(moves, -1e-30), jnp.inf)
  return jnp.minimum(1.0, _TO_BOUNDARY * jnp.min(ratios))


def _matvec(matrix: jax.Array, vector: jax.Array) -> jax.Array:
  return jnp.matmul(matrix, vector, precision=jax.lax.Precision.HIGHEST)


def _init(shape: Shape) -> NewtonState:
  num_rows, num_experts = shape
  return NewtonState(
    jnp.full(shape, 1 / num_experts, jnp.float32),
    jnp.zeros((num_rows, num_experts, num_experts), jnp.float32),
  )


def _play(state: NewtonState, task_mix: jax.Array) -> jax.Array:
  return mix_rows(state.rows, task_mix)


def _step(
  numbers: Numbers, state: NewtonState, task_mix, gradient
) -> NewtonState:
  eye = jnp.eye(state.rows.shape[1], dtype=jnp.float32)

  def step_row(row, squares, row_gradient):
    squares = numbers.forgetting * squares
    squares = squares + row_gradient[:, None] * row_gradient[None, :]
    matrix = numbers.regularisation * eye + squares
    move = cho_solve(cho_factor(matrix), row_gradient)
    return project_in_norm(row + numbers.learning_rate * move, matrix), squares

  gradients = row_gradients(state.rows, task_mix, gradient)
  return NewtonState(*jax.vmap(step_row)(*state, gradients))


@ranges.checked
def online_newton(
  *,
  num_experts: AtLeastTwo,
  num_tasks: Count,
  learning_rate: Positive = 1.0,
  regularisation: Positive = 10.0,
  forgetting: Chance = 0.99,
  contextual: bool = False,
  gradient_scale: Positive | None = None,
) -> Bandit:
  """Takes Newton steps with A = epsilon I + sum g g' for the curvature.

    p <- the point of the simplex nearest to p + eta A^-1 g in A's norm.

  With forgetting 1, one row, and rewards that are alpha-exp-concave (the log
  of a linear function is, and what curves along its gradient) with gradients of
  length at most G, eta = 1 / gamma, gamma = min(1 / (4 G D), alpha) / 2,
  epsilon = 1 / (gamma D)^2 and D = sqrt(2) give regret of at most 5 (1 / alpha
  + G D) E log T (Hazan, Agarwal, Kale 2007, theorem 2). [R] Contextual: each
  row has an A of its own, and the A of all rows together is taken to be block
  diagonal. An E x E matrix a row is kept.

  Args:
    num_experts: E.
    num_tasks: V.
    learning_rate: eta, in units of the gradients' largest entry.
    regularisation: epsilon, in units of its square.
    forgetting: factor of the sum of g g' each gradient, in (0, 1]; below 1 for
      rewards that drift [R].
    contextual: a row for each task, x = psi P, in place of one row for all.
    gradient_scale: a bound on the gradients' entries, their unit; None for the
      largest so far.

  Raises:
    ValueError: if a number is out of range.
  """
  shape = rows_shape(num_experts, num_tasks, contextual)
  numbers = Numbers(
    *map(jnp.float32, (learning_rate, regularisation, forgetting))
  )
  learner = Learner(
    Partial(_init, shape),
    Partial(_play),
    Partial(_step, numbers),
    Partial(describe_nothing),
  )
  return first_order_bandit(learner, gradient_scale)
