"""Schedules of training against NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tanbr_jax.bandits.neural import neural_training
from tanbr_jax.bandits.neural.neural_learner import Learner, make_rates
from tanbr_jax.bandits.neural.reward_network import symmetric_init

E, V, WIDTH = 3, 2, 4
# No multiple of the blocks of 128, so that the last one overlaps.
CAPACITY, SLOTS = 150, 140
RIDGE, RATE, STEPS = 0.3, 0.7, 3


@pytest.fixture(scope="module")
def descent():
  """A state with SLOTS slots, before and after gradient descent."""
  learner = Learner(
    neural_training.GRADIENT_DESCENT,
    E,
    V,
    (WIDTH,),
    num_steps=STEPS,
    replay_capacity=CAPACITY,
    ntk=True,
    initialise=symmetric_init,
    reward_spread=None,
  )
  rng = np.random.default_rng(0)
  state = learner.init(jax.random.key(0))
  weights, rewards = np.zeros((CAPACITY, E)), np.zeros((CAPACITY, V))
  counts = np.zeros((CAPACITY, V))
  weights[:SLOTS] = rng.dirichlet(np.ones(E), SLOTS)
  rewards[:SLOTS] = rng.standard_normal((SLOTS, V))
  counts[:SLOTS] = rng.integers(0, 3, (SLOTS, V))
  replay = state.replay._replace(
    weights=jnp.asarray(weights, jnp.float32),
    rewards=jnp.asarray(rewards, jnp.float32),
    counts=jnp.asarray(counts, jnp.float32),
    num_slots=jnp.int32(SLOTS),
  )
  state = state._replace(replay=replay)
  train = jax.jit(learner.training.train)
  key = jax.random.key(1)
  return state, {
    learnt: train(
      learner, make_rates(RATE, RIDGE), key, state, jnp.asarray(learnt)
    )
    for learnt in (True, False)
  }


def kernels(params):
  layers = params["params"]
  return (
    np.asarray(layers["hidden_layers_0"]["kernel"], np.float64),
    np.asarray(layers["output"]["kernel"], np.float64),
  )


def test_gradient_descent_is_that_of_algorithm_2(descent):
  state, after = descent
  first, second = start = kernels(state.params)
  ring = [np.asarray(array, np.float64) for array in state.replay[:3]]
  eta = RATE / (RIDGE + SLOTS) / WIDTH
  for _ in range(STEPS):
    grads = [
      WIDTH * RIDGE * (now - then)
      for now, then in zip((first, second), start, strict=True)
    ]
    for x, r, count in zip(*ring, strict=True):
      hidden = np.maximum(x @ first, 0)
      error = (count > 0) * (WIDTH**0.5 * hidden @ second - r)
      grads[0] += WIDTH**0.5 * np.outer(x, (second @ error) * (hidden > 0))
      grads[1] += WIDTH**0.5 * np.outer(hidden, error)
    first, second = first - eta * grads[0], second - eta * grads[1]
  # Float32 sums of 140 terms.
  for ours, wanted in zip(
    kernels(after[True].params), (first, second), strict=True
  ):
    np.testing.assert_allclose(ours, wanted, rtol=1e-4, atol=1e-5)


def test_a_slot_that_shows_nothing_does_not_train(descent):
  state, after = descent
  for ours, wanted in zip(
    kernels(after[False].params), kernels(state.params), strict=True
  ):
    np.testing.assert_array_equal(ours, wanted)


def test_random_order_permutes_the_slots_that_there_are():
  keys = jax.random.split(jax.random.key(0), 3000)
  orders = jax.vmap(neural_training.random_order, (0, None, None))(
    keys, jnp.int32(5), 7
  )
  assert orders.dtype == jnp.int32
  ours = np.asarray(orders)[:, :5]
  np.testing.assert_array_equal(np.sort(ours), np.tile(np.arange(5), (3000, 1)))
  # Every slot comes at every place in a fifth of the orders: 600 of 3,000
  # with a standard deviation of 22.
  for place in range(5):
    assert np.all(abs(np.bincount(ours[:, place]) - 600) < 5 * 22)
