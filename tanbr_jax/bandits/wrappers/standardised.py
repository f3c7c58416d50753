"""A bandit that sees rewards in units learnt from the first of them.

Accuracies, log-likelihoods and earnings have an offset and a scale that nobody
should have to tell a learner. The wrapped bandit learns from

  r' = (r - offset) / scale

with the offset a median of the first slot's rewards, and the scale the largest
deviation from it in the first slot where there is one beyond rounding. Both
stay from then on, so that no reward that was learnt from changes its meaning;
until there is a scale all rewards are alike, and r' is 0 under any. Hence r and
a r + b give the same r' (a > 0, up to float32), whatever is wrapped. That the
scale is rough does not matter: the learners here are free of it, for what they
explore by is a multiple of the rewards' spread so far.

A reward far outside of all that came before is refused: it is not learnt from,
as if the task had not been seen. "Far" is a deviation of more than REACH times
the largest so far; each slot that refuses widens this by REACH, so that rewards
whose scale has grown are learnt from in the end and one of 1e30 is not. Before
there is a scale, rewards beyond MOST_FIRST are refused in the same way. Rewards
beyond MOST_UNITS scales are refused always. Letters: V tasks.
"""

from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from tanbr_jax.bandits.arms.slot_reward import make_range
from tanbr_jax.bandits.base import (
  Bandit,
  Context,
  Decision,
  Feedback,
  as_pytree,
  begin,
)
from tanbr_jax.bandits.reward_model import observed
from tanbr_jax.checks import ranges
from tanbr_jax.checks.ranges import Real

REACH = 10.0
MOST_FIRST = 1e6
# Squares of what is learnt from, summed over any run, stay far from overflow.
MOST_UNITS = 1e6
# The largest scale that is learnt, for the same reason.
_MOST_SCALE = 1e15
# Deviations within so many roundings of the rewards are none.
_ROUNDING = 16 * float(np.finfo(np.float32).eps)


class RewardUnits(NamedTuple):
  """Units of rewards.

  Attributes:
    offset: [] float32.
    scale: [] float32, positive; 0 until it is known.
    limit: [] float32, largest deviation from the offset that is learnt from.
    has_offset: [] bool, whether there was a reward.
    num_refused: [] int32, rewards that were refused so far.
  """

  offset: jax.Array
  scale: jax.Array
  limit: jax.Array
  has_offset: jax.Array
  num_refused: jax.Array


class StandardisedState(NamedTuple):
  """State of `standardised`.

  Attributes:
    bandit: the wrapped bandit's state.
    units: of the rewards.
  """

  bandit: Any
  units: RewardUnits


def init_units(reward_range: tuple[float, float] | None = None) -> RewardUnits:
  """Returns units to be learnt, or those in which a known range is [0, 1].

  Raises:
    ValueError: if the range is not finite and in order.
  """
  known = make_range(reward_range)
  lowest, width, limit = 0.0, 0.0, MOST_FIRST
  if reward_range is not None:
    lowest, width = known.lowest, known.highest - known.lowest
    limit = REACH * width
  return RewardUnits(
    jnp.float32(lowest),
    jnp.float32(width),
    jnp.float32(limit),
    jnp.asarray(reward_range is not None),
    jnp.int32(0),
  )


def learn_units(
  units: RewardUnits, reward: chex.Array, count: chex.Array
) -> tuple[RewardUnits, jax.Array]:
  """Returns the units after a slot, and which rewards [V] are learnt from.

  Args:
    units: before the slot.
    reward: [V], finite.
    count: [V], 0 where a task was not seen.
  """
  seen = count > 0
  # The lower median of what may be learnt from; it is one of the rewards.
  allowed = seen & (jnp.abs(reward - units.offset) <= units.limit)
  ordered = jnp.sort(jnp.where(allowed, reward, jnp.inf))
  middle = jnp.maximum(jnp.sum(allowed, dtype=jnp.int32) - 1, 0) // 2
  is_first = jnp.any(allowed) & ~units.has_offset
  offset = jnp.where(is_first, ordered[middle], units.offset)
  # What is left when the offset is known.
  deviation = jnp.abs(reward - offset)
  taken = allowed & (deviation <= units.limit)
  largest = jnp.max(jnp.where(taken, deviation, 0.0))
  size = jnp.maximum(
    jnp.max(jnp.where(taken, jnp.abs(reward), 0.0)), jnp.abs(offset)
  )
  # The scale, once, and how far rewards may lie from the offset.
  is_known = units.scale > 0
  finds = ~is_known & (largest > _ROUNDING * size)
  scale = jnp.where(finds, largest, units.scale)
  limit = jnp.where(finds, 0.0, units.limit)
  limit = jnp.where(
    is_known | finds, jnp.maximum(limit, REACH * largest), limit
  )
  refused = jnp.sum(seen & ~taken, dtype=jnp.int32)
  limit = jnp.where(refused > 0, REACH * limit, limit)
  most = jnp.where(scale > 0, MOST_UNITS * scale, _MOST_SCALE)
  return (
    RewardUnits(
      offset,
      scale,
      jnp.minimum(limit, most),
      units.has_offset | is_first,
      units.num_refused + refused,
    ),
    taken,
  )


def _init(bandit: Bandit, units: RewardUnits, key) -> StandardisedState:
  return StandardisedState(bandit.init(key), begin(units, key))


def _select(
  bandit: Bandit, key, state: StandardisedState, context: Context
) -> Decision:
  decision = bandit.select(key, state.bandit, context)
  # What a reader of the run wants to see is told in the rewards' own units.
  units, aux = state.units, dict(decision.aux)
  scale = jnp.where(units.scale > 0, units.scale, 1.0)
  if "predicted_reward" in aux:
    aux["predicted_reward"] = units.offset + scale * aux["predicted_reward"]
  if "exploration_bonus" in aux:
    aux["exploration_bonus"] = scale * aux["exploration_bonus"]
  aux["refused_rewards"] = units.num_refused
  return Decision(decision.merge_weights, aux)


def _scale_gradient(units: RewardUnits, feedback: Feedback) -> Feedback:
  """Tells a gradient of the reward in its scale; hides it before there is one.

  One that is REACH times beyond what rewards may deviate by is hidden too.
  """
  if feedback.gradient is None:
    return feedback
  largest = jnp.max(jnp.abs(feedback.gradient))
  fits = (units.scale > 0) & (largest <= REACH * units.limit)
  size = jnp.where(units.scale > 0, units.scale, jnp.inf)
  count = feedback.gradient_count
  count = jnp.int32(1) if count is None else count
  return feedback._replace(
    gradient=jnp.where(fits, feedback.gradient / size, 0.0),
    gradient_count=jnp.where(fits, count, 0),
  )


def _update(
  bandit: Bandit,
  key,
  state: StandardisedState,
  context: Context,
  decision: Decision,
  feedback: Feedback,
) -> StandardisedState:
  reward, count = observed(feedback)
  units, taken = learn_units(state.units, reward, count)
  size = jnp.where(units.scale > 0, units.scale, jnp.inf)
  reward = jnp.where(taken, (reward - units.offset) / size, 0.0)
  feedback = _scale_gradient(units, feedback)._replace(
    task_reward=reward,
    task_count=jnp.where(taken, feedback.task_count, 0),
  )
  learnt = bandit.update(key, state.bandit, context, decision, feedback)
  return StandardisedState(learnt, units)


@ranges.checked
def standardised(
  bandit: Bandit, *, reward_range: tuple[Real, Real] | None = None
) -> Bandit:
  """Wraps a bandit so that it learns from (r - offset) / scale.

  All learners of the registry are wrapped. `predicted_reward` and
  `exploration_bonus` in their decisions' aux are told in the rewards' own
  units, and aux also holds refused_rewards, how many were refused before.

  Args:
    bandit: what is wrapped; what it explores by must not depend on the rewards'
      unit.
    reward_range: (lowest, highest) reward, which become 0 and 1; None for an
      offset and a scale that are learnt.

  Raises:
    ValueError: if the range is not finite and in order.
  """
  bandit = as_pytree(bandit)
  return bandit._replace(
    init=Partial(_init, bandit, init_units(reward_range)),
    select=Partial(_select, bandit),
    update=Partial(_update, bandit),
  )
