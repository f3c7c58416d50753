"""What first-order learners share: gradients in learnt units, rows of a table.

A first-order learner plays x and is told g, the derivative of the slot's reward
in x, or a noisy estimate of it. For a concave reward f_t and any u,

  f_t(u) - f_t(x_t) <= g_t . (u - x_t),

so that regret on the linear rewards bounds regret (Zinkevich, "Online convex
programming and generalized infinitesimal gradient ascent", ICML 2003).

A learner holds rows p_r on the simplex and plays x = sum_r c_r p_r. Either one
row is played as it is, c = 1, or, contextual, each task has a row and c = psi,
the task mix. The derivative in row r is c_r g. Letters: V tasks, E experts, R
rows (1 or V).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from tanbr_jax.bandits.base import (
  Bandit,
  Context,
  Decision,
  Feedback,
  Needs,
  Shape,
  begin,
)

# [R] A gradient larger than REACH units is shortened to that, so that one that
# is wrong by orders of magnitude is one long step.
REACH = 10.0
_LEAST, _MOST = 1e-30, 1e30


class Learner(NamedTuple):
  """A learner of gradients in units of the largest one.

  Attributes:
    init: `init() -> state`.
    play: `play(state, task_mix [V]) -> x [E]` on the simplex.
    step: `step(state, task_mix, gradient [E]) -> state`; entries of the
      gradient are at most REACH in absolute value and their mean is 0.
    describe: `describe(state) -> aux`, scalars for a reader of the run.
  """

  init: Callable[[], Any]
  play: Callable[[Any, jax.Array], jax.Array]
  step: Callable[[Any, jax.Array, jax.Array], Any]
  describe: Callable[[Any], dict[str, jax.Array]]


class FirstOrderState(NamedTuple):
  """State of a first-order bandit.

  Attributes:
    learner: the learner's.
    largest: [2] float32, the two largest gradients by max_e |g_e|, the larger
      one first; 0 where there was none.
    num_gradients: [] int32, gradients learnt from.
  """

  learner: Any
  largest: jax.Array
  num_gradients: jax.Array


def shares_of_rows(rows: jax.Array, task_mix: jax.Array) -> jax.Array:
  """Returns c [R]: 1 for a single row, else the mix."""
  if rows.shape[0] == 1:
    return jnp.ones_like(rows[:, 0])
  return task_mix


def mix_rows(rows: jax.Array, task_mix: jax.Array) -> jax.Array:
  """Returns x [E] of rows [R, E]."""
  return jnp.sum(shares_of_rows(rows, task_mix)[:, None] * rows, axis=0)


def row_gradients(
  rows: jax.Array, task_mix: jax.Array, gradient: jax.Array
) -> jax.Array:
  """Returns the derivative in every row, [R, E]."""
  return shares_of_rows(rows, task_mix)[:, None] * gradient[None, :]


def observed_gradient(feedback: Feedback) -> tuple[jax.Array, jax.Array]:
  """Returns the gradient [E] without its mean, and whether there is one.

  There is none where the count is 0 or an entry is not finite; the gradient
  comes back as zeros then, so that NaN never spreads. Entries are cut at 1e30,
  so that their sums are finite.
  """
  seen = jnp.all(jnp.isfinite(feedback.gradient))
  if feedback.gradient_count is not None:
    seen = seen & (feedback.gradient_count > 0)
  gradient = jnp.clip(jnp.where(seen, feedback.gradient, 0.0), -_MOST, _MOST)
  return gradient - jnp.mean(gradient), seen


def to_units(
  gradient: jax.Array, largest: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """Returns the gradient in units of the largest norm, and the largest norms.

  The unit is the second largest max_e |g_e| so far, this gradient's included
  (the largest, as long as there is one alone). A factor of all gradients
  changes nothing, and a single one that is huge sets no unit.

  Args:
    gradient: [E], finite.
    largest: [2], see `FirstOrderState`.
  """
  size = jnp.max(jnp.abs(gradient))
  unit = _unit(largest)
  shortened = jnp.where(unit > 0, jnp.minimum(size, REACH * unit), size)
  largest = jnp.stack(
    [
      jnp.maximum(largest[0], shortened),
      jnp.maximum(largest[1], jnp.minimum(largest[0], shortened)),
    ]
  )
  # Shortened again, as the first of all may have been the huge one.
  unit = jnp.maximum(_unit(largest), _LEAST)
  factor = jnp.minimum(shortened / unit, REACH) / jnp.maximum(size, _LEAST)
  return factor * gradient, largest


def _unit(largest: jax.Array) -> jax.Array:
  return jnp.where(largest[1] > 0, largest[1], largest[0])


def _init(learner: Learner, key) -> FirstOrderState:
  largest = jnp.zeros(2, jnp.float32)
  return begin(FirstOrderState(learner.init(), largest, jnp.int32(0)), key)


def _select(
  learner: Learner, key, state: FirstOrderState, context: Context
) -> Decision:
  del key
  weights = learner.play(state.learner, context.task_mix)
  aux = {"num_gradients": state.num_gradients}
  return Decision(weights, aux | learner.describe(state.learner))


def _update(
  learner: Learner,
  unit: jax.Array | None,
  key,
  state: FirstOrderState,
  context: Context,
  decision: Decision,
  feedback: Feedback,
) -> FirstOrderState:
  del key, decision
  if feedback.gradient is None:
    return state
  gradient, seen = observed_gradient(feedback)
  if unit is None:
    gradient, largest = to_units(gradient, state.largest)
  else:
    gradient, largest = jnp.clip(gradient / unit, -REACH, REACH), state.largest
  new = FirstOrderState(
    learner.step(state.learner, context.task_mix, gradient),
    largest,
    state.num_gradients + jnp.int32(1),
  )
  return jax.tree.map(lambda a, b: jnp.where(seen, a, b), new, state)


def first_order_bandit(
  learner: Learner, gradient_scale: chex.Numeric | None
) -> Bandit:
  """Returns the bandit, which needs gradients and nothing else.

  Args:
    learner: a pytree of `Partial`s.
    gradient_scale: the unit of gradients, a bound on max_e |g_e|; entries
      beyond REACH times it are cut. None for the largest so far (see
      `to_units`), which makes the learner free of the rewards' scale.

  """
  unit = None if gradient_scale is None else jnp.float32(gradient_scale)
  return Bandit(
    Partial(_init, learner),
    Partial(_select, learner),
    Partial(_update, learner, unit),
    Needs(("gradient",)),
  )


def rows_shape(num_experts: int, num_tasks: int, contextual: bool) -> Shape:
  """Returns [R, E]."""
  return Shape((num_tasks if contextual else 1, num_experts))


def describe_nothing(state: Any) -> dict[str, jax.Array]:
  """The `describe` of a learner that has nothing to tell."""
  del state
  return {}
