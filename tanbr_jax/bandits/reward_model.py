"""A reward model: mean and uncertainty of psi . r(x), learnt online.

Every learning bandit here is a reward model, a source of candidate weights and
a rule that picks among them. Letters: V tasks, E experts, P features.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from tanbr_jax.bandits.base import Feedback

State = Any
Estimate = Callable[[jax.Array], tuple[jax.Array, jax.Array]]


def _as_proposed(state, task_mix, merge_weights: jax.Array) -> jax.Array:
  del state, task_mix
  return merge_weights


class RewardModel(NamedTuple):
  """A model of the tasks' rewards as pure functions.

  Attributes:
    init: `init(key) -> state`.
    estimate: `estimate(key, state, task_mix [V]) -> (x [E] -> (mean [],
      bonus []))`, the mix-weighted mean reward of weights and its exploration
      bonus; random (Thompson) bonuses are drawn once, so that what comes back
      is a fixed smooth function of x.
    update: `update(key, state, task_mix, merge_weights, feedback) -> state`.
    restrain: `restrain(state, task_mix, merge_weights [E]) -> [E]`, what is
      played where a learner proposes the weights; the weights by default.
  """

  init: Callable[[jax.Array], State]
  estimate: Callable[[jax.Array, State, jax.Array], Estimate]
  update: Callable[[jax.Array, State, jax.Array, jax.Array, Feedback], State]
  restrain: Callable[[State, jax.Array, jax.Array], jax.Array] = Partial(
    _as_proposed
  )


class RewardScale(NamedTuple):
  """Running mean and spread of all rewards seen (Welford).

  Attributes:
    count: [] float32.
    mean: [] float32.
    square: [] float32, the mean squared deviation.
  """

  count: jax.Array
  mean: jax.Array
  square: jax.Array


def observed(feedback: Feedback) -> tuple[jax.Array, jax.Array]:
  """Returns rewards [V] and counts [V] in which only real observations count.

  A task with count 0, or whose reward is not finite, was not observed: its
  count comes back as 0 and its reward as 0, so that NaN never spreads.
  """
  seen = (feedback.task_count > 0) & jnp.isfinite(feedback.task_reward)
  reward = jnp.where(seen, feedback.task_reward, 0.0)
  return reward, jnp.where(seen, feedback.task_count, 0).astype(jnp.float32)


def init_scale() -> RewardScale:
  """Returns the scale before any reward: mean 0, spread 1."""
  return RewardScale(jnp.float32(0), jnp.float32(0), jnp.float32(1))


def update_scale(
  scale: RewardScale, reward: chex.Array, count: chex.Array
) -> RewardScale:
  """Adds one slot's rewards [V]; tasks with count 0 do not matter."""
  seen = (count > 0).astype(jnp.float32)
  added = jnp.sum(seen)
  total = scale.count + added
  # A prior weight of one observation keeps the first spread finite.
  rate = added / jnp.maximum(total, 1.0)
  slot_mean = jnp.sum(seen * reward) / jnp.maximum(added, 1.0)
  mean = scale.mean + rate * (slot_mean - scale.mean)
  slot_square = jnp.sum(seen * (reward - mean) ** 2) / jnp.maximum(added, 1.0)
  shift = (mean - scale.mean) ** 2
  first = (scale.count == 0).astype(jnp.float32)
  old = (1 - first) * (scale.square + shift)
  square = jnp.where(added > 0, old + rate * (slot_square - old), scale.square)
  return RewardScale(total, mean, square)


def spread(scale: RewardScale) -> jax.Array:
  """Returns the standard deviation of the rewards seen, at least 1e-6."""
  return jnp.sqrt(jnp.maximum(scale.square, 1e-12))
