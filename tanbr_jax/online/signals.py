"""The signals of a slot between an environment and a bandit.

Rewards, the gradient and the usage pass through here: what is not finite or not
asked for does not reach the bandit, and a run whose environment cannot give
what its bandit needs is refused before it starts. Letters: V tasks, E experts.
"""

from collections.abc import Collection
from typing import NamedTuple

import jax
import jax.numpy as jnp

from tanbr_jax.bandits.base import Bandit, Decision, Feedback, Needs

# The optional fields of `Feedback` that a bandit may name, and who gives them.
SOURCES = {
  "gradient": "gradient_requests of moe_slots, gradient_noise of synthetic "
  "and gradients of logged",
  "usage": "usage of moe_slots and of logged",
}


class Hidden(NamedTuple):
  """What was not finite and hence not shown to the bandit.

  Attributes:
    rewards: [] int32, tasks.
    signals: [] int32, the gradient and the usage, 0 to 2.
  """

  rewards: jax.Array
  signals: jax.Array


def check_needs(needs: Needs, given: Collection[str], *, name: str) -> None:
  """Refuses a bandit that needs what it is not given.

  Args:
    needs: of the bandit.
    given: names of the optional fields of `Feedback` that are given.
    name: of the bandit, for the message.

  Raises:
    ValueError: a need is no field of `SOURCES`, or is not given.
  """
  for need in needs:
    if need not in SOURCES:
      raise ValueError(f"{name} may need {sorted(SOURCES)}, got {need!r}")
    if need not in given:
      raise ValueError(
        f"{name} needs feedback.{need}, which the environment does not give; "
        f"it comes with {SOURCES[need]}"
      )


def check_shapes(
  bandit: Bandit, decision: Decision, feedback: Feedback, *, name: str
) -> None:
  """Refuses feedback that is not as `Feedback` says, or lacks what is needed.

  Args:
    bandit: of the run.
    decision: shapes and types of its decision.
    feedback: shapes and types of what the environment gives.
    name: of the run, for the message.

  Raises:
    ValueError: as `check_needs`; a signal has a wrong shape or type, or there
      is a gradient without its count, or a count without its gradient.
  """
  given = [n for n in SOURCES if getattr(feedback, n) is not None]
  check_needs(bandit.needs, given, name=name)
  weights = decision.merge_weights.shape
  expected = {
    "gradient": (weights, jnp.float32),
    "usage": (weights, jnp.float32),
    "gradient_count": ((), jnp.int32),
  }
  for field, (shape, dtype) in expected.items():
    found = getattr(feedback, field)
    if found is not None and (found.shape, found.dtype) != (shape, dtype):
      raise ValueError(
        f"feedback.{field} must be {jnp.dtype(dtype).name}{list(shape)}, got "
        f"{found.dtype}{list(found.shape)}"
      )
  if (feedback.gradient is None) != (feedback.gradient_count is None):
    lacks = "gradient" if feedback.gradient is None else "gradient_count"
    raise ValueError(
      "feedback.gradient and feedback.gradient_count go together, got no "
      f"{lacks}"
    )


def shown(feedback: Feedback, needs: Needs) -> tuple[Feedback, Hidden]:
  """The part of the feedback that a bandit sees.

  Optional fields that the bandit does not need become None. What nobody reads
  is not computed either: the compiler removes it. Tasks whose reward is not
  finite, a gradient and a usage that are not, become "not seen in this slot",
  as `Feedback` says it of each.

  Args:
    feedback: of the environment.
    needs: of the bandit.

  Returns:
    What is shown, and how much of it was hidden.
  """
  reward, count, num_rewards = _finite_rewards(feedback)
  gradient, gradient_count, usage = None, None, None
  num_signals = jnp.int32(0)
  if "gradient" in needs:
    gradient, gradient_count, is_hidden = _finite_gradient(feedback)
    num_signals += is_hidden
  if "usage" in needs:
    is_finite = jnp.all(jnp.isfinite(feedback.usage))
    usage = jnp.where(is_finite, feedback.usage, 0)
    num_signals += (~is_finite).astype(jnp.int32)
  kept = Feedback(reward, count, gradient, usage, gradient_count)
  return kept, Hidden(num_rewards, num_signals)


def _finite_rewards(
  feedback: Feedback,
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Rewards and counts [V], and how many tasks were hidden."""
  is_finite = jnp.isfinite(feedback.task_reward)
  is_hidden = jnp.logical_and(~is_finite, feedback.task_count > 0)
  return (
    jnp.where(is_finite, feedback.task_reward, 0),
    jnp.where(is_finite, feedback.task_count, 0),
    jnp.sum(is_hidden, dtype=jnp.int32),
  )


def _finite_gradient(
  feedback: Feedback,
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """The gradient [E], its count, and 1 where it was hidden."""
  is_finite = jnp.all(jnp.isfinite(feedback.gradient))
  # What stands in a gradient that the slot does not give is of no account.
  is_given = feedback.gradient_count > 0
  is_shown = jnp.logical_and(is_finite, is_given)
  is_hidden = jnp.logical_and(~is_finite, is_given)
  return (
    jnp.where(is_shown, feedback.gradient, 0),
    jnp.where(is_shown, feedback.gradient_count, 0),
    is_hidden.astype(jnp.int32),
  )
