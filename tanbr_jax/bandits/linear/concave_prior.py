"""A reward model whose prior mean falls away from the plain average.

A linear model with a prior mean of 0 believes, before it has seen anything,
that the far corners of the simplex are as good as the plain average, and the
more experts there are the more directions it has to be wrong in: what it
explores by sends it there. Averages of experts that were trained alike are
seldom bad, and a single expert seldom best. So the prior mean is

  m(x) = -concavity |x - 1/E|^2,

in units of the noise's standard deviation, and what is learnt is the rest,
r(x) - m(x), with a prior mean of 0: leaving the centre has a price from the
start, which data may take back. The first slots, at the centre, tell the noise;
m is 0 there whatever it is. A greedy step along a slope g then goes to
g / (2 concavity), so that what is uncertain is tried near the centre, and what
is known further away. [R] Letters: E experts.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from tanbr_jax.bandits.base import Shape
from tanbr_jax.bandits.reward_model import RewardModel, observed

# Slots at the plain average that tell the noise.
NOISE_SLOTS = 4
# The noise's standard deviation is taken to be at least that, in the rewards'
# first spread: what it is in units of would vanish with it. And this where no
# task was seen twice.
LEAST_NOISE, _NO_NOISE = 0.02, 0.3


class ConcaveState(NamedTuple):
  """State of a model with a concave prior mean.

  Attributes:
    model: of the wrapped model, which learns the rest.
    count: [V] float32, the first slots' requests of each task.
    mean: [V] float32, their mean rewards.
    square: [] float32, sum of squared deviations, of one request each.
    freedom: [] float32, degrees of freedom of `square`.
    num_slots: [] int32, slots that told the noise so far.
  """

  model: Any
  count: jax.Array
  mean: jax.Array
  square: jax.Array
  freedom: jax.Array
  num_slots: jax.Array


def noise(state: ConcaveState) -> jax.Array:
  """Returns a request's standard deviation [], in the rewards' units."""
  found = jnp.sqrt(state.square / jnp.maximum(state.freedom, 1))
  found = jnp.where(state.freedom > 0, found, _NO_NOISE)
  return jnp.maximum(found, LEAST_NOISE)


def fall(concavity: jax.Array, state: ConcaveState) -> jax.Array:
  """Returns the factor [] of |x - 1/E|^2 in m(x)."""
  return -concavity * noise(state)


def _distance(weights: jax.Array) -> jax.Array:
  return jnp.sum((weights - 1 / weights.shape[0]) ** 2)


def _init(model: RewardModel, shape: Shape, key) -> ConcaveState:
  zeros, zero = jnp.zeros(shape, jnp.float32), jnp.float32(0)
  return ConcaveState(model.init(key), zeros, zeros, zero, zero, jnp.int32(0))


def _estimate(model: RewardModel, concavity, key, state, task_mix):
  rest = model.estimate(key, state.model, task_mix)
  factor = fall(concavity, state)

  def estimate(weights):
    mean, bonus = rest(weights)
    return mean + factor * _distance(weights), bonus

  return estimate


def _update(model, concavity, key, state, task_mix, weights, feedback):
  factor = fall(concavity, state)
  reward, count = observed(feedback)
  # Welford, as long as the plain average is played.
  total = state.count + count
  shift = reward - state.mean
  mean = state.mean + shift * count / jnp.maximum(total, 1)
  square = jnp.sum(
    jnp.where(state.count > 0, count * shift * (reward - mean), 0)
  )
  freedom = jnp.sum((count > 0) & (state.count > 0), dtype=jnp.float32)
  told = jnp.any(count > 0) & (state.num_slots < NOISE_SLOTS)
  told_noise = ConcaveState(
    None,
    total,
    mean,
    state.square + square,
    state.freedom + freedom,
    state.num_slots + 1,
  )
  told_noise = jax.tree.map(
    lambda a, b: jnp.where(told, a, b), told_noise, state._replace(model=None)
  )
  feedback = feedback._replace(
    task_reward=feedback.task_reward - factor * _distance(weights)
  )
  if feedback.gradient is not None:
    slope = factor * jax.grad(_distance)(weights)
    feedback = feedback._replace(gradient=feedback.gradient - slope)
  learnt = model.update(key, state.model, task_mix, weights, feedback)
  return told_noise._replace(model=learnt)


def with_concave_prior(
  model: RewardModel, concavity: float | jax.Array, *, num_tasks: int
) -> RewardModel:
  """Returns a model that learns the rewards less m(x), and adds m(x) again.

  The mean of every task is m(x) before the first slot.

  Args:
    model: of the rest, with a prior mean of 0.
    concavity: in units of the noise's standard deviation; at 0 the model is
      the one that is given.
    num_tasks: V.
  """
  concavity = jnp.float32(concavity)
  return RewardModel(
    Partial(_init, model, Shape((num_tasks,))),
    Partial(_estimate, model, concavity),
    Partial(_update, model, concavity),
  )
