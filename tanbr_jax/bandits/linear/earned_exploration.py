"""A reward model whose exploration grows with what it has earned.

What exploration costs is paid at once, what it finds is earned later, and a
stream may be over, or the experts too many, before it pays. The model's own
mean tells both: the gain of played weights over the plain average,

  g = mean(x) - mean(1/E),

is negative where exploration costs more than what was learnt brings. The bonus
is multiplied by

  b = least + (1 - least) max(0, sum g / sum |g|)^2,

sums over the last 1 / (1 - memory) slots: a learner that stands below the plain
average explores little, near it; one whose every slot is a gain explores in
full, as it can afford what that costs. The budget in proportion to what was
earned is that of conservative bandits (Wu et al., "Conservative bandits", ICML
2016; Kazerouni et al., "Conservative contextual linear bandits", NIPS 2017),
taken from the posterior's mean instead of its lower bound, hence without their
guarantee. [R] Letters: E experts.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from tanbr_jax.bandits.reward_model import RewardModel, observed

_MEMORY = 0.98


class EarnedState(NamedTuple):
  """State of a model that earns its exploration.

  Attributes:
    model: of the wrapped model.
    gains: [] float32, sum of the last slots' g.
    sizes: [] float32, sum of their sizes.
  """

  model: Any
  gains: jax.Array
  sizes: jax.Array


def _init(model: RewardModel, key) -> EarnedState:
  return EarnedState(model.init(key), jnp.float32(0), jnp.float32(0))


def _boldness(least: jax.Array, state: EarnedState) -> jax.Array:
  share = state.gains / jnp.maximum(state.sizes, jnp.finfo(jnp.float32).tiny)
  return least + (1 - least) * jnp.maximum(share, 0.0) ** 2


def _estimate(model: RewardModel, least, key, state: EarnedState, task_mix):
  boldness = _boldness(least, state)
  full = model.estimate(key, state.model, task_mix)

  def estimate(weights):
    mean, bonus = full(weights)
    return mean, boldness * bonus

  return estimate


def _update(model, least, key, state: EarnedState, task_mix, weights, feedback):
  del least
  estimate = model.estimate(key, state.model, task_mix)
  centre = jnp.full_like(weights, 1 / weights.shape[0])
  gain = estimate(weights)[0] - estimate(centre)[0]
  seen = jnp.any(observed(feedback)[1] > 0)
  return EarnedState(
    model.update(key, state.model, task_mix, weights, feedback),
    jnp.where(seen, _MEMORY * state.gains + gain, state.gains),
    jnp.where(seen, _MEMORY * state.sizes + jnp.abs(gain), state.sizes),
  )


def with_earned_exploration(
  model: RewardModel, least: float | jax.Array
) -> RewardModel:
  """Returns a model whose bonus is b times as large.

  Args:
    model: whose bonus is that of full exploration.
    least: b before anything was earned, in [0, 1]; 1 explores in full always.
  """
  least = jnp.float32(least)
  return RewardModel(
    Partial(_init, model),
    Partial(_estimate, model, least),
    Partial(_update, model, least),
  )
