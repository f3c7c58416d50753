"""One number a slot: the mix-weighted reward, and the range it lies in.

For bandits that do not learn every task's reward by itself. Letters: V tasks.
"""

import math
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np

from tanbr_jax.bandits.base import Feedback
from tanbr_jax.bandits.reward_model import observed

_LARGEST = float(np.finfo(np.float32).max)


class SlotReward(NamedTuple):
  """The reward of a slot's tasks together.

  Attributes:
    value: [] sum_v mix_v r_v; 0 where nothing was seen.
    seen: [] bool, whether a task of the mix was observed at all.
    mix: [V] the task mix over the tasks that were seen, summing to 1.
    variance: [] sum_v mix_v^2 / count_v, the variance of `value` in units of
      that of one request's reward.
  """

  value: jax.Array
  seen: jax.Array
  mix: jax.Array
  variance: jax.Array


class RewardRange(NamedTuple):
  """An interval of rewards.

  Attributes:
    lowest: [] float32.
    highest: [] float32; below `lowest` until something was seen.
    grows: [] bool, whether rewards outside widen it or are clipped.
  """

  lowest: jax.Array
  highest: jax.Array
  grows: jax.Array


def slot_reward(task_mix: chex.Array, feedback: Feedback) -> SlotReward:
  """Returns psi . r over the tasks that were seen, with psi renormalised.

  Args:
    task_mix: [V], psi.
    feedback: of the slot; tasks with count 0 or a reward that is not finite
      were not seen.
  """
  reward, count = observed(feedback)
  shares = jnp.where(count > 0, task_mix, 0.0)
  total = jnp.sum(shares)
  seen = total > 0
  mix = shares / jnp.where(seen, total, 1.0)
  variance = jnp.sum(mix**2 / jnp.maximum(count, 1.0))
  return SlotReward(jnp.dot(mix, reward), seen, mix, variance)


def make_range(bounds: tuple[float, float] | None) -> RewardRange:
  """Returns a range that stays, or one that grows with the rewards seen.

  Args:
    bounds: (lowest, highest) that rewards are clipped to; None for the
      smallest and the largest reward so far.

  Raises:
    ValueError: if the bounds are not finite and in order.
  """
  if bounds is None:
    return RewardRange(
      jnp.float32(_LARGEST), jnp.float32(-_LARGEST), jnp.asarray(True)
    )
  lowest, highest = bounds
  if not (-math.inf < lowest < highest < math.inf):
    raise ValueError(
      f"reward_range must be (lowest, highest), got reward_range={bounds}"
    )
  return RewardRange(
    jnp.float32(lowest), jnp.float32(highest), jnp.asarray(False)
  )


def widen(
  bounds: RewardRange, reward: chex.Array, seen: chex.Array
) -> RewardRange:
  """Returns the range with the rewards [W] that were seen [W] in it."""
  grows = seen & bounds.grows
  lowest = jnp.min(jnp.where(grows, reward, _LARGEST))
  highest = jnp.max(jnp.where(grows, reward, -_LARGEST))
  return bounds._replace(
    lowest=jnp.minimum(bounds.lowest, lowest),
    highest=jnp.maximum(bounds.highest, highest),
  )


def width(bounds: RewardRange) -> jax.Array:
  """Returns highest - lowest; 0 while nothing was seen."""
  return jnp.where(
    bounds.highest > bounds.lowest, bounds.highest - bounds.lowest, 0.0
  )


def rescale(bounds: RewardRange, reward: chex.Array) -> jax.Array:
  """Returns a reward [] in [0, 1]; 1/2 while the range is empty."""
  span = width(bounds)
  unit = (reward - bounds.lowest) / jnp.where(span > 0, span, 1.0)
  return jnp.where(span > 0, jnp.clip(unit, 0.0, 1.0), 0.5)
