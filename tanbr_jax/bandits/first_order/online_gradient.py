"""Gradient ascent on the logits of a softmax, with Adam's steps or plain ones.

Zinkevich, "Online convex programming and generalized infinitesimal gradient
ascent", ICML 2003; Kingma and Ba, "Adam: a method for stochastic optimization",
ICLR 2015. Letters: V tasks, E experts, R rows (see `learner`).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
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
from tanbr_jax.checks.names import check_choice
from tanbr_jax.checks.ranges import AtLeastTwo, Count, Decay, Positive

# [R] A softmax whose weight is 0 in float32 has no derivative to come back by:
# no weight falls below exp(-LOGIT_RANGE) of the largest.
LOGIT_RANGE = 12.0
_EPSILON = 1e-12


class SoftmaxState(NamedTuple):
  """State of ascent on logits.

  Attributes:
    logits: [R, E] float32, theta; the rows are its softmax.
    mean: [R, E] float32, Adam's running mean of the derivatives.
    square: [R, E] float32, Adam's running mean of their squares.
    num_steps: [] float32.
  """

  logits: jax.Array
  mean: jax.Array
  square: jax.Array
  num_steps: jax.Array


class Numbers(NamedTuple):
  """Numbers of the step, traced.

  Attributes:
    learning_rate: [].
    mean_decay: [] b1.
    square_decay: [] b2.
  """

  learning_rate: jax.Array
  mean_decay: jax.Array
  square_decay: jax.Array


def init(shape: Shape) -> SoftmaxState:
  """Rows of equal weights, before any step."""
  zeros = [jnp.zeros(shape, jnp.float32) for _ in range(3)]
  return SoftmaxState(*zeros, jnp.float32(0))


def play(state: SoftmaxState, task_mix: jax.Array) -> jax.Array:
  """Returns x [E]."""
  return mix_rows(jax.nn.softmax(state.logits, axis=1), task_mix)


def _logit_gradients(state: SoftmaxState, task_mix, gradient) -> jax.Array:
  """Returns p (g_r - p . g_r), the derivative in the logits, [R, E]."""
  rows = jax.nn.softmax(state.logits, axis=1)
  gradients = row_gradients(rows, task_mix, gradient)
  mean = jnp.sum(rows * gradients, axis=1, keepdims=True)
  return rows * (gradients - mean)


def _bounded(logits: jax.Array) -> jax.Array:
  logits = logits - jnp.max(logits, axis=1, keepdims=True)
  return jnp.maximum(logits, -LOGIT_RANGE)


def adam_step(
  numbers: Numbers,
  state: SoftmaxState,
  task_mix: jax.Array,
  gradient: jax.Array,
) -> SoftmaxState:
  """One step of Adam upwards."""
  gradients = _logit_gradients(state, task_mix, gradient)
  num_steps = state.num_steps + 1
  b1, b2 = numbers.mean_decay, numbers.square_decay
  mean = b1 * state.mean + (1 - b1) * gradients
  square = b2 * state.square + (1 - b2) * gradients**2
  # The running means began at 0.
  size = jnp.sqrt(square / (1 - b2**num_steps)) + _EPSILON
  moves = mean / (1 - b1**num_steps) / size
  logits = state.logits + numbers.learning_rate * moves
  return SoftmaxState(_bounded(logits), mean, square, num_steps)


def plain_step(
  numbers: Numbers,
  state: SoftmaxState,
  task_mix: jax.Array,
  gradient: jax.Array,
) -> SoftmaxState:
  """One step along the derivative."""
  gradients = _logit_gradients(state, task_mix, gradient)
  logits = state.logits + numbers.learning_rate * gradients
  return state._replace(logits=_bounded(logits), num_steps=state.num_steps + 1)


STEPS = {"adam": adam_step, "plain": plain_step}


@ranges.checked
def online_gradient(
  *,
  num_experts: AtLeastTwo,
  num_tasks: Count,
  learning_rate: Positive = 0.1,
  steps: str = "adam",
  mean_decay: Decay = 0.5,
  square_decay: Decay = 0.99,
  contextual: bool = False,
  gradient_scale: Positive | None = None,
) -> Bandit:
  """Ascends the logits theta of x = softmax(theta), one step a gradient.

    theta <- theta + eta m,

  m the derivative in theta (plain), or Adam's mean of it over the root of its
  mean square. On x itself, plain steps of 1 / sqrt(t) with projection have
  regret of at most (D^2 / 2 + G^2) sqrt(T) (Zinkevich 2003); [R] in theta the
  reward need not be concave and the bound does not carry over, but rows stay
  inside the simplex and no projection is needed.

  Args:
    num_experts: E.
    num_tasks: V.
    learning_rate: eta; of plain steps in units of 1 / the gradients' largest
      entry, of Adam's in logits.
    steps: "adam" or "plain".
    mean_decay: Adam's b1, in [0, 1).
    square_decay: Adam's b2, in [0, 1).
    contextual: a row for each task, x = psi softmax(theta), in place of one row
      for all.
    gradient_scale: a bound on the gradients' entries, their unit; None for the
      largest so far.

  Raises:
    ValueError: if a choice is not known or a number out of range.
  """
  shape = rows_shape(num_experts, num_tasks, contextual)
  check_choice("steps", steps, STEPS)
  numbers = Numbers(
    jnp.float32(learning_rate),
    jnp.float32(mean_decay),
    jnp.float32(square_decay),
  )
  learner = Learner(
    Partial(init, shape),
    Partial(play),
    Partial(STEPS[steps], numbers),
    Partial(describe_nothing),
  )
  return first_order_bandit(learner, gradient_scale)
