"""A bandit whose feedback arrives some slots late.

Joulani, Gyorgy and Szepesvari, "Online learning under delayed feedback", ICML
2013: the wrapped bandit is updated when a slot's feedback arrives, with the
decision of that slot. Letters: D slots of delay, V tasks.
"""

from typing import Any, NamedTuple

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
  as_pytree,
  begin,
)
from tanbr_jax.bandits.first_order.learner import observed_gradient
from tanbr_jax.bandits.reward_model import observed
from tanbr_jax.checks import ranges
from tanbr_jax.checks.ranges import Count


class DelayedState(NamedTuple):
  """State of `delayed`.

  Attributes:
    bandit: the wrapped bandit's state.
    waiting: (Context, Decision, Feedback) with a leading [D]: slots whose
      feedback has not arrived, a ring.
    place: [] int32, where in the ring the next slot goes.
    arrives: [] bool, whether a slot waits there, so that the ring is full.
  """

  bandit: Any
  waiting: tuple[Context, Decision, Feedback]
  place: jax.Array
  arrives: jax.Array


def _init(bandit: Bandit, ring: Shape, key) -> DelayedState:
  state = bandit.init(key)
  delay, num_tasks = ring
  context = Context(jnp.zeros(num_tasks, jnp.float32))
  decision = jax.eval_shape(bandit.select, key, state, context)
  feedback = _kept(
    Feedback(
      jnp.zeros(num_tasks, jnp.float32), jnp.zeros(num_tasks, jnp.int32)
    ),
    bandit.needs,
    decision.merge_weights,
  )
  waiting = jax.tree.map(
    lambda leaf: jnp.zeros((delay, *leaf.shape), leaf.dtype),
    (context, decision, feedback),
  )
  start = DelayedState(state, waiting, jnp.int32(0), jnp.asarray(False))
  return begin(start, key)


def _kept(feedback: Feedback, needs: Needs, weights: jax.Array) -> Feedback:
  """Returns what the bandit needs, without what is not finite or not given."""
  reward, count = observed(feedback)
  kept = Feedback(reward, count.astype(jnp.int32))
  nothing = jnp.zeros_like(weights)
  if "gradient" in needs:
    gradient, seen = nothing, jnp.asarray(False)
    if feedback.gradient is not None:
      gradient, seen = observed_gradient(feedback)
    kept = kept._replace(
      gradient=gradient, gradient_count=seen.astype(jnp.int32)
    )
  if "usage" in needs:
    usage = nothing if feedback.usage is None else feedback.usage
    is_finite = jnp.all(jnp.isfinite(usage))
    kept = kept._replace(usage=jnp.where(is_finite, usage, 0.0))
  return kept


def _select(bandit: Bandit, key, state, context: Context) -> Decision:
  return bandit.select(key, state.bandit, context)


def _update(
  bandit: Bandit,
  key,
  state: DelayedState,
  context: Context,
  decision: Decision,
  feedback: Feedback,
) -> DelayedState:
  place = state.place
  feedback = _kept(feedback, bandit.needs, decision.merge_weights)
  arrived = jax.tree.map(lambda ring: ring[place], state.waiting)
  learnt = bandit.update(key, state.bandit, *arrived)
  waiting = jax.tree.map(
    lambda ring, leaf: ring.at[place].set(leaf),
    state.waiting,
    (context, decision, feedback),
  )
  delay = waiting[0].task_mix.shape[0]
  is_last = place == delay - 1
  return DelayedState(
    jax.tree.map(
      lambda new, old: jnp.where(state.arrives, new, old), learnt, state.bandit
    ),
    waiting,
    jnp.where(is_last, jnp.int32(0), place + jnp.int32(1)),
    state.arrives | is_last,
  )


@ranges.checked
def delayed(bandit: Bandit, *, delay: Count, num_tasks: Count) -> Bandit:
  """Wraps a bandit so that it learns from a slot `delay` slots later.

  The update of round t gives the wrapped bandit the slot of round t - D (its
  context, decision and feedback, the gradient and the usage too where the
  bandit needs them) and the key of round t; nothing before round D. A gradient
  is then that of the point played D slots before.

  Args:
    bandit: what is wrapped.
    delay: D, at least 1.
    num_tasks: V.

  Raises:
    ValueError: if the delay or the number of tasks is below 1.
  """
  bandit = as_pytree(bandit)
  ring = Shape((delay, num_tasks))
  return bandit._replace(
    init=Partial(_init, bandit, ring),
    select=Partial(_select, bandit),
    update=Partial(_update, bandit),
  )
