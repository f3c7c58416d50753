"""Trains the reward network in a round, by one of three schedules.

  ADAM              J minibatch steps from the last parameters, on the mean
                    squared error [R]: the work does not grow with t
  SGD               single samples in one random order, epoch after epoch, J
                    steps at most, with weight decay: NeuralUCB's public code
  GRADIENT_DESCENT  J steps on all slots, on
                    sum (f - r)^2 / 2 + m ridge |theta - theta_0|^2 / 2:
                    NeuralUCB's Algorithm 2 (Zhou, Li and Gu 2020), which
                    begins each round at theta_0; [R] ours goes on from the last
                    parameters, which brings J steps far closer to the minimum

Squared errors are summed over the tasks that a slot showed [R: the paper has
one output]. Letters: V tasks, E experts, N samples, R replayed slots.
"""

import jax
import jax.numpy as jnp
import optax

from tanbr_jax.bandits.neural.neural_learner import (
  Learner,
  LearnerState,
  Rates,
  Training,
  fold_slots,
)
from tanbr_jax.simplex.varying import alike

_OPTIMISER = optax.scale_by_adam()


def _squared_error(learner, params, weights, rewards, counts) -> jax.Array:
  """Returns the sum over samples and seen tasks; [N, E], [N, V], [N, V]."""
  predictions = jax.vmap(learner.network.apply, (None, 0))(params, weights)
  seen = (counts > 0).astype(jnp.float32)
  return jnp.sum(seen * (predictions - rewards) ** 2)


def _adam(
  learner: Learner, rates: Rates, key, state: LearnerState, learnt
) -> LearnerState:
  del learnt
  replay = state.replay

  def loss(params, weights, rewards, counts):
    squared = _squared_error(learner, params, weights, rewards, counts)
    seen = jnp.sum((counts > 0).astype(jnp.float32))
    distance = optax.tree.norm(
      optax.tree.sub(params, state.initial_params), squared=True
    )
    # The ridge of the whole history over its length, as the minibatch error is
    # a mean: NeuralUCB's objective divided by the number of slots.
    share = rates.ridge / jnp.maximum(replay.num_slots, 1).astype(jnp.float32)
    return 0.5 * squared / jnp.maximum(seen, 1.0) + 0.5 * share * distance

  def step(carry, step_key):
    params, opt_state = carry
    # Draw a minibatch, differentiate, step.
    rows = jax.random.randint(
      step_key,
      (learner.batch_size,),
      0,
      jnp.maximum(replay.num_filled, 1),
      jnp.int32,
    )
    rewards = learner.standardise(replay, replay.rewards[rows])
    gradient = jax.grad(loss)(
      params, replay.weights[rows], rewards, replay.counts[rows]
    )
    # optax raises a float to an integer power, which strict promotion (a
    # user's setting, and that of our tests) would refuse.
    with jax.numpy_dtype_promotion("standard"):
      updates, opt_state = _OPTIMISER.update(gradient, opt_state, params)
    updates = optax.tree.scale(-rates.learning_rate, updates)
    return (optax.apply_updates(params, updates), opt_state), None

  start = state.params, state.opt_state
  after, _ = jax.lax.scan(step, start, jax.random.split(key, learner.num_steps))
  # Nothing was ever observed: stay at the initial parameters.
  params, opt_state = optax.tree.where(replay.num_slots > 0, after, start)
  return state._replace(params=params, opt_state=opt_state)


def random_order(key: jax.Array, filled: jax.Array, capacity: int) -> jax.Array:
  """Returns [R] int32 whose first `filled` entries are a permutation of them.

  Random high bits over the index in the low ones are sorted: one array of
  integers sorts many times faster on a CPU than keys with values.
  """
  index_bits = max(1, (capacity - 1).bit_length())
  mask = jnp.uint32(2**index_bits - 1)
  indices = jnp.arange(capacity, dtype=jnp.uint32)
  drawn = (jax.random.bits(key, (capacity,), jnp.uint32) & ~mask) | indices
  # The highest key is left to rows that hold no slot.
  drawn = jnp.where(indices < filled.astype(jnp.uint32), drawn, ~jnp.uint32(0))
  return (jax.lax.sort(drawn, is_stable=False) & mask).astype(jnp.int32)


def _sgd(
  learner: Learner, rates: Rates, key, state: LearnerState, learnt
) -> LearnerState:
  # How many steps this round may take.
  replay = state.replay
  due = (replay.num_slots <= learner.dense_rounds) | (
    (replay.num_slots - 1) % learner.sparse_every == 0
  )
  most_steps = jnp.where(learnt & due, learner.num_steps, 0)
  # The samples of all steps, in the order in which they are taken.
  order = random_order(key, replay.num_filled, learner.replay_capacity)
  filled = jnp.maximum(replay.num_filled, 1)
  rows = order[jnp.arange(learner.num_steps, dtype=jnp.int32) % filled]
  weights, counts = replay.weights[rows], replay.counts[rows]
  rewards = learner.standardise(replay, replay.rewards[rows])

  def loss(params, i):
    sample = weights[i][None], rewards[i][None], counts[i][None]
    return _squared_error(learner, params, *sample)

  # A step on one sample; the mean loss of an epoch is known at its end.
  def step(carry):
    i, params, total, epoch_loss = carry
    value, gradient = jax.value_and_grad(loss)(params, i)
    params = jax.tree.map(
      lambda p, g: p - rates.learning_rate * (g + rates.ridge * p),
      params,
      gradient,
    )
    total = total + value
    ends = (i + 1) % filled == 0
    mean_loss = total / filled.astype(jnp.float32)
    total = jnp.where(ends, 0.0, total)
    return i + 1, params, total, jnp.where(ends, mean_loss, epoch_loss)

  # Training ends after enough steps or with a low enough epoch.
  def goes_on(carry):
    i, _, _, epoch_loss = carry
    return (i < most_steps) & (epoch_loss > rates.stop_loss)

  start = (jnp.int32(0), state.params, jnp.float32(0), jnp.float32(jnp.inf))
  start = alike(start, replay)
  params = jax.lax.while_loop(goes_on, step, start)[1]
  return state._replace(params=params)


def _gradient_descent(
  learner: Learner, rates: Rates, key, state: LearnerState, learnt
) -> LearnerState:
  del key
  replay, width = state.replay, learner.hidden[-1]

  def half_error(params, *slots):
    return 0.5 * _squared_error(learner, params, *slots)

  def gradient(params):
    def add(total, weights, rewards, counts):
      rewards = learner.standardise(replay, rewards)
      grads = jax.grad(half_error)(params, weights, rewards, counts)
      return optax.tree.add(total, grads)

    return fold_slots(replay, add, optax.tree.zeros_like(params))

  # The theorem takes eta of the order of 1 / (m lambda + T m L), which bounds
  # the steepest direction of the loss. [R] Ours has the slots so far for T, and
  # `learning_rate` for what else it leaves open.
  slots = replay.num_slots.astype(jnp.float32)
  eta = rates.learning_rate / (rates.ridge + slots) / width
  pull = width * rates.ridge

  def step(_, params):
    return jax.tree.map(
      lambda p, p0, g: p - eta * (g + pull * (p - p0)),
      params,
      state.initial_params,
      gradient(params),
    )

  num_steps = jnp.where(learnt, learner.num_steps, 0)
  params = jax.lax.fori_loop(0, num_steps, step, state.params)
  return state._replace(params=params)


def _stateless(params) -> tuple[()]:
  del params
  return ()


ADAM = Training(_OPTIMISER.init, _adam)
SGD = Training(_stateless, _sgd)
GRADIENT_DESCENT = Training(_stateless, _gradient_descent)
