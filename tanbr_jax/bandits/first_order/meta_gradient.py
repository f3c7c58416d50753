"""A first-order learner without a learning rate to set.

Base learners ascend logits with Adam (see `online_gradient`) or multiply
weights (see `exponentiated_gradient`), at rates of a geometric grid, with one
row for all slots and with a row for each task. The mean of what they would
play, by weights w, is played. The one gradient g at
that point x updates every base learner, and tells what each would have gained,

  a_i = g . (x_i - x),

the reward of i on the linear rewards (Zhang, Lu and Zhou, "Adaptive online
learning in dynamic environments", NeurIPS 2018, with surrogate losses: "Ader").
The weights follow by exponential weights with a fixed share (Herbster and
Warmuth, "Tracking the best expert", Machine Learning 1998),

  w <- (1 - alpha) w exp(beta a / s) / Z + alpha / N,

s the running root mean square of the gains under w. No unit is left to set:
gradients are in units of the largest ones, gains in units of their own.
Letters: V tasks, E experts, N base learners.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from tanbr_jax.bandits.base import Bandit, Shape
from tanbr_jax.bandits.first_order import (
  exponentiated_gradient,
  online_gradient,
)
from tanbr_jax.bandits.first_order.learner import (
  Learner,
  first_order_bandit,
  rows_shape,
)
from tanbr_jax.bandits.first_order.online_gradient import SoftmaxState
from tanbr_jax.checks import ranges
from tanbr_jax.checks.ranges import AtLeastTwo, Count, Inner, Positive

# [R] Adam's decays and the fixed share of the base learners, the decay of s^2.
_MEAN_DECAY, _SQUARE_DECAY, _BASE_SHARE, _GAIN_DECAY = 0.5, 0.99, 1e-3, 0.99
# [R] A base learner of almost no weight may differ from x by many s.
_MOST_GAIN = 5.0
_LEAST = 1e-20


class Bases(NamedTuple):
  """Base learners with as many rows, at every rate: a leading [rates].

  Attributes:
    adam: those that ascend logits.
    exponentiated: [rates, R, E], log weights of those that multiply them.
  """

  adam: SoftmaxState
  exponentiated: jax.Array


class MetaState(NamedTuple):
  """State of the meta-learner.

  Attributes:
    bases: those of one row, and where contextual those of a row for each task.
    log_weights: [N] float32, log w, in the order of `bases` and their fields.
    gain_square: [] float32, decaying mean of squared gains, from 0 on.
    num_steps: [] float32.
  """

  bases: tuple[Bases, ...]
  log_weights: jax.Array
  gain_square: jax.Array
  num_steps: jax.Array


class MetaNumbers(NamedTuple):
  """Numbers of the meta-learner, traced.

  Attributes:
    rates: [number of rates] of every kind of base learner.
    meta_rate: [] beta.
    share: [] alpha.
  """

  rates: jax.Array
  meta_rate: jax.Array
  share: jax.Array


def _init(shapes: tuple[Shape, ...], numbers: MetaNumbers) -> MetaState:
  num_rates = numbers.rates.shape[0]
  starts = tuple(
    Bases(online_gradient.init(shape), exponentiated_gradient.init(shape))
    for shape in shapes
  )
  bases = jax.tree.map(
    lambda leaf: jnp.tile(leaf, (num_rates,) + (1,) * leaf.ndim), starts
  )
  num_bases = 2 * num_rates * len(shapes)
  even = jnp.full(num_bases, -np.log(num_bases), jnp.float32)
  return MetaState(bases, even, jnp.float32(0), jnp.float32(0))


def _points(state: MetaState, task_mix: jax.Array) -> jax.Array:
  """Returns what every base learner would play, [N, E]."""
  plays = online_gradient.play, exponentiated_gradient.play
  return jnp.concatenate(
    [
      jax.vmap(play, (0, None))(base, task_mix)
      for bases in state.bases
      for play, base in zip(plays, bases, strict=True)
    ]
  )


def _step_bases(
  numbers: MetaNumbers, bases: Bases, task_mix, gradient
) -> Bases:
  adam_numbers = online_gradient.Numbers(
    numbers.rates, jnp.float32(_MEAN_DECAY), jnp.float32(_SQUARE_DECAY)
  )
  adam = jax.vmap(
    online_gradient.adam_step,
    (online_gradient.Numbers(0, None, None), 0, None, None),
  )
  exponentiated = jax.vmap(
    exponentiated_gradient.step,
    (exponentiated_gradient.Numbers(0, None), 0, None, None),
  )
  shared = exponentiated_gradient.Numbers(
    numbers.rates, jnp.float32(_BASE_SHARE)
  )
  return Bases(
    adam(adam_numbers, bases.adam, task_mix, gradient),
    exponentiated(shared, bases.exponentiated, task_mix, gradient),
  )


def _average(log_weights: jax.Array, points: jax.Array) -> jax.Array:
  return jnp.sum(jax.nn.softmax(log_weights)[:, None] * points, axis=0)


def _play(state: MetaState, task_mix: jax.Array) -> jax.Array:
  return _average(state.log_weights, _points(state, task_mix))


def _step(
  numbers: MetaNumbers,
  state: MetaState,
  task_mix: jax.Array,
  gradient: jax.Array,
) -> MetaState:
  # What every base learner would have gained over what was played.
  points = _points(state, task_mix)
  played = _average(state.log_weights, points)
  gains = jnp.sum((points - played[None, :]) * gradient[None, :], axis=1)
  # Gains in units of their own spread, which begins at 0.
  num_steps = state.num_steps + 1
  mean_square = jnp.sum(jax.nn.softmax(state.log_weights) * gains**2)
  gain_square = (
    _GAIN_DECAY * state.gain_square + (1 - _GAIN_DECAY) * mean_square
  )
  spread = jnp.sqrt(gain_square / (1 - _GAIN_DECAY**num_steps))
  gains = jnp.clip(gains / jnp.maximum(spread, _LEAST), -_MOST_GAIN, _MOST_GAIN)
  # Exponential weights, of which a share is spread evenly.
  log_weights = jax.nn.log_softmax(
    state.log_weights + numbers.meta_rate * gains
  )
  log_weights = jnp.logaddexp(
    jnp.log1p(-numbers.share) + log_weights,
    jnp.log(numbers.share / log_weights.shape[0]),
  )
  # The same gradient for every base learner.
  bases = tuple(
    _step_bases(numbers, one, task_mix, gradient) for one in state.bases
  )
  return MetaState(bases, log_weights, gain_square, num_steps)


def _describe(numbers: MetaNumbers, state: MetaState) -> dict[str, jax.Array]:
  weights = jax.nn.softmax(state.log_weights)
  weights = weights.reshape(len(state.bases), 2, -1)
  log_rate = jnp.sum(weights * jnp.log(numbers.rates)[None, None, :])
  aux = {"learning_rate": jnp.exp(log_rate)}
  if len(state.bases) > 1:
    aux["contextual_share"] = jnp.sum(weights[1])
  return aux


@ranges.checked
def meta_gradient(
  *,
  num_experts: AtLeastTwo,
  num_tasks: Count,
  least_rate: Positive = 0.01,
  most_rate: Positive = 1.0,
  num_rates: Count = 5,
  contextual: bool = True,
  meta_rate: Positive = 0.05,
  share: Inner = 0.003,
) -> Bandit:
  """Averages gradient learners of many rates by what they would have gained.

  Over any stretch of s slots it loses to the best base learner at most about
  (log(N / alpha) / beta + beta s / 2) root mean squares of the gains, plus
  alpha s / beta for the share. With base learners that project steps of rates
  2^i, dynamic regret against weights that move by P_T in all is then of order
  sqrt(T (1 + P_T)), the best possible (Zhang, Lu, Zhou 2018); [R] ours step
  in logits or multiply weights, to which that bound does not carry over.
  Decisions' aux holds learning_rate, the geometric mean of the rates by w, and
  contextual_share, the weight of the learners with a row for each task.

  Args:
    num_experts: E.
    num_tasks: V.
    least_rate: the least rate of the grid, for Adam in logits a step, for
      multiplied weights in units of 1 / the gradients' largest entry.
    most_rate: the largest one.
    num_rates: rates of the grid, ends included.
    contextual: whether there are base learners with a row for each task.
    meta_rate: beta.
    share: alpha, in (0, 1).

  Raises:
    ValueError: if a number is out of range.
  """
  if not least_rate <= most_rate:
    raise ValueError(
      f"least_rate must not exceed most_rate, got {least_rate=}, {most_rate=}"
    )
  kinds = (False, True) if contextual else (False,)
  shapes = tuple(rows_shape(num_experts, num_tasks, kind) for kind in kinds)
  rates = np.geomspace(least_rate, most_rate, num_rates)
  numbers = MetaNumbers(
    jnp.asarray(rates, jnp.float32), jnp.float32(meta_rate), jnp.float32(share)
  )
  learner = Learner(
    Partial(_init, shapes, numbers),
    Partial(_play),
    Partial(_step, numbers),
    Partial(_describe, numbers),
  )
  return first_order_bandit(learner, None)
