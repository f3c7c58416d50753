"""How the reward network is trained in a round: three schedules.

  adam              J minibatch steps of Adam from the last parameters, on the
                    mean squared error [R]: the work does not grow with t
  sgd               single samples in one random order, epoch after epoch, J
                    steps at most, with weight decay: NeuralUCB's public code
  gradient_descent  J steps on all slots, on
                    sum (f - r)^2 / 2 + m ridge |theta - theta_0|^2 / 2:
                    NeuralUCB's Algorithm 2 (Zhou, Li and Gu 2020), which
                    begins each round at theta_0; [R] ours goes on from the last
                    parameters, which brings J steps far closer to the minimum

Squared errors are summed over the tasks that a slot showed [R: the paper has
one output]. Letters: V tasks, E experts, R replayed slots.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from tanbr_jax.bandits.neural.neural_structure import (
  NeuralState,
  Numbers,
  Structure,
)
from tanbr_jax.bandits.reward_model import spread

# Slots that `fold_slots` takes at once.
_BLOCK = 128


def init(structure: Structure, params: Any) -> Any:
  """Returns the optimiser's state before the first step."""
  if structure.training == "adam":
    return optax.scale_by_adam().init(params)
  return ()


def train(
  structure: Structure,
  numbers: Numbers,
  key: jax.Array,
  state: NeuralState,
  learnt: jax.Array,
) -> NeuralState:
  """Returns the state after a round's training.

  Args:
    structure: the network and its schedule.
    numbers: learning rate, ridge.
    key: random key, consumed.
    state: with the round's slot already in the ring.
    learnt: [] bool, whether the slot showed anything.
  """
  return _SCHEDULES[structure.training](structure, numbers, key, state, learnt)


def step_size(numbers: Numbers, num_slots: jax.Array) -> jax.Array:
  """Returns eta m for "gradient_descent", [].

  The theorem takes eta of the order of 1 / (m lambda + T m L), which bounds
  the steepest direction of the loss. [R] Ours has the slots so far for T, and
  `learning_rate` for what else it leaves open.
  """
  return numbers.learning_rate / (numbers.ridge + num_slots)


def fold_slots(
  structure: Structure,
  state: NeuralState,
  add: Callable[..., Any],
  start: Any,
) -> Any:
  """Folds `add` over blocks of the ring up to its last slot.

  So early rounds are cheap, and a full ring costs always the same.

  Args:
    structure: sizes.
    state: with the ring.
    add: `add(carry, weights [B, E], rewards [B, V], counts [B, V]) -> carry`;
      rows that hold no slot come with count 0.
    start: the first carry.
  """
  capacity = structure.replay_capacity
  filled = jnp.minimum(state.num_slots, capacity)
  block = min(_BLOCK, capacity)

  def body(i, carry):
    # The last block of a ring that is no multiple of blocks begins earlier;
    # what it shares with the one before must not count twice.
    first = jnp.minimum(i * block, capacity - block)
    fresh = first + jnp.arange(block) >= i * block
    weights, rewards, counts = (
      jax.lax.dynamic_slice_in_dim(array, first, block)
      for array in (state.weights, state.rewards, state.counts)
    )
    return add(carry, weights, rewards, jnp.where(fresh[:, None], counts, 0.0))

  return jax.lax.fori_loop(0, (filled + block - 1) // block, body, start)


def _targets(structure, state: NeuralState):
  mean, size = jnp.float32(0), jnp.float32(1)
  if structure.normalise_rewards:
    mean, size = state.scale.mean, spread(state.scale)
  return mean, size


def _squared_error(structure, params, weights, rewards, counts) -> jax.Array:
  """Returns the sum over slots and seen tasks; [N, E], [N, V], [N, V]."""
  predictions = jax.vmap(structure.network.apply, (None, 0))(params, weights)
  seen = (counts > 0).astype(jnp.float32)
  return jnp.sum(seen * (predictions - rewards) ** 2)


def _adam(structure, numbers, key, state: NeuralState, learnt) -> NeuralState:
  del learnt
  filled = jnp.minimum(state.num_slots, structure.replay_capacity)
  mean, size = _targets(structure, state)
  adam = optax.scale_by_adam()

  def loss(params, weights, rewards, counts):
    squared = _squared_error(structure, params, weights, rewards, counts)
    seen = jnp.sum((counts > 0).astype(jnp.float32))
    distance = optax.tree.norm(
      optax.tree.sub(params, state.initial_params), squared=True
    )
    # The ridge of the whole history over its length, as the minibatch error is
    # a mean: NeuralUCB's objective divided by the number of slots.
    share = numbers.ridge / jnp.maximum(state.num_slots, 1).astype(jnp.float32)
    return 0.5 * squared / jnp.maximum(seen, 1.0) + 0.5 * share * distance

  def step(carry, step_key):
    params, opt_state = carry
    rows = jax.random.randint(
      step_key, (structure.batch_size,), 0, jnp.maximum(filled, 1)
    )
    rewards = (state.rewards[rows] - mean) / size
    gradient = jax.grad(loss)(
      params, state.weights[rows], rewards, state.counts[rows]
    )
    # optax raises a float to an integer power, which strict promotion (a
    # user's setting, and that of our tests) would refuse.
    with jax.numpy_dtype_promotion("standard"):
      updates, opt_state = adam.update(gradient, opt_state, params)
    updates = optax.tree.scale(-numbers.learning_rate, updates)
    return (optax.apply_updates(params, updates), opt_state), None

  (params, opt_state), _ = jax.lax.scan(
    step,
    (state.params, state.opt_state),
    jax.random.split(key, structure.num_steps),
  )
  # Nothing was ever observed: stay at the initial parameters.
  learns = state.num_slots > 0
  params, opt_state = optax.tree.where(
    learns, (params, opt_state), (state.params, state.opt_state)
  )
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


def _sgd(structure, numbers, key, state: NeuralState, learnt) -> NeuralState:
  filled = jnp.minimum(state.num_slots, structure.replay_capacity)
  order = random_order(key, filled, structure.replay_capacity)
  due = (state.num_slots <= structure.dense_rounds) | (
    (state.num_slots - 1) % structure.sparse_every == 0
  )
  num_steps = jnp.where(learnt & due, structure.num_steps, 0)
  params = _epochs(structure, numbers, state, order, filled, num_steps)
  return state._replace(params=params)


def _epochs(structure, numbers, state, order, filled, num_steps) -> Any:
  """Returns the parameters after at most `num_steps` single samples."""
  filled = jnp.maximum(filled, 1)
  rows = order[jnp.arange(structure.num_steps) % filled]
  mean, size = _targets(structure, state)
  weights, counts = state.weights[rows], state.counts[rows]
  rewards = (state.rewards[rows] - mean) / size

  def loss(params, i):
    return _squared_error(
      structure, params, weights[i][None], rewards[i][None], counts[i][None]
    )

  def step(carry):
    i, params, total, epoch_loss = carry
    value, gradient = jax.value_and_grad(loss)(params, i)
    params = jax.tree.map(
      lambda p, g: p - numbers.learning_rate * (g + numbers.ridge * p),
      params,
      gradient,
    )
    total = total + value
    ends = (i + 1) % filled == 0
    mean_loss = total / filled.astype(jnp.float32)
    return (
      i + 1,
      params,
      jnp.where(ends, 0.0, total),
      jnp.where(ends, mean_loss, epoch_loss),
    )

  def goes_on(carry):
    i, _, _, epoch_loss = carry
    return (i < num_steps) & (epoch_loss > numbers.stop_loss)

  start = (jnp.int32(0), state.params, jnp.float32(0), jnp.float32(jnp.inf))
  return jax.lax.while_loop(goes_on, step, start)[1]


def _gradient_descent(
  structure, numbers, key, state: NeuralState, learnt
) -> NeuralState:
  del key
  mean, size = _targets(structure, state)

  def gradient(params):
    def add(total, weights, rewards, counts):
      grads = jax.grad(
        lambda params: (
          0.5
          * _squared_error(
            structure, params, weights, (rewards - mean) / size, counts
          )
        )
      )(params)
      return optax.tree.add(total, grads)

    return fold_slots(structure, state, add, optax.tree.zeros_like(params))

  slots = state.num_slots.astype(jnp.float32)
  rate = step_size(numbers, slots) / structure.width
  pull = structure.width * numbers.ridge

  def step(_, params):
    return jax.tree.map(
      lambda p, p0, g: p - rate * (g + pull * (p - p0)),
      params,
      state.initial_params,
      gradient(params),
    )

  num_steps = jnp.where(learnt, structure.num_steps, 0)
  params = jax.lax.fori_loop(0, num_steps, step, state.params)
  return state._replace(params=params)


_SCHEDULES = {
  "adam": _adam,
  "sgd": _sgd,
  "gradient_descent": _gradient_descent,
}
