"""The neural model's statistics against NumPy, and that it fits."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tanbr_jax.bandits import Feedback, reward_model
from tanbr_jax.bandits.neural.neural_learner import Learner, make_rates
from tanbr_jax.bandits.neural.neural_model import Numbers, neural_model
from tanbr_jax.bandits.neural.neural_training import ADAM

E, V, LAMBDA, GAMMA = 3, 2, 0.5, 1.5
MIX = jnp.full(V, 0.5, jnp.float32)
NUMBERS = Numbers(GAMMA, LAMBDA, make_rates(1e-2))
LEARNER = Learner(ADAM, E, V, (16, 16), num_steps=4, replay_capacity=4096)


def truth(x):
  return jnp.stack([3 - 4 * (x[0] - 0.5) ** 2, 2 * x[1] + x[2] ** 2])


def run(confidence, num_slots):
  """A state after some slots, and the features that were played."""
  model = neural_model(LEARNER, NUMBERS, confidence=confidence)
  xs = np.random.default_rng(0).dirichlet(np.ones(E), num_slots)
  xs = jnp.asarray(xs, jnp.float32)
  keys = jax.random.split(jax.random.key(0), num_slots)

  def step(state, row):
    x, key = row
    feedback = Feedback(truth(x), jnp.ones(V, jnp.int32))
    features = gradient(confidence, state.learner.params, x)
    return model.update(key, state, MIX, x, feedback), features

  play = jax.jit(lambda key: jax.lax.scan(step, model.init(key), (xs, keys)))
  state, features = play(jax.random.key(1))
  return model, state, xs, np.asarray(features, np.float64)


def gradient(confidence, params, x):
  """The gradient features of MIX . f(x), by jax.grad or by the last layer."""
  network = LEARNER.network
  if confidence == "last_layer":
    return network.apply(params, x, features=True)
  grads = jax.grad(lambda p: jnp.dot(MIX, network.apply(p, x)))(params)
  return jax.flatten_util.ravel_pytree(grads)[0]


@pytest.fixture(scope="module")
def trained():
  """As `run`, with last-layer features, long enough to learn."""
  return run("last_layer", 400)


def check_widths(confidence, model, state, xs, features):
  """Bonuses against a matrix that is summed and solved in float64."""
  width = LEARNER.hidden[-1]
  matrix = LAMBDA * np.eye(features.shape[1]) + features.T @ features / width
  if confidence == "diagonal":
    matrix = np.diag(np.diag(matrix))
  rewards = np.asarray(jax.vmap(truth)(xs))

  @jax.jit
  @jax.vmap
  def at(x):
    _, bonus = model.estimate(jax.random.key(0), state, MIX)(x)
    return bonus, gradient(confidence, state.learner.params, x)

  bonuses, gradients = at(xs[:4])
  for bonus, g in zip(bonuses, np.asarray(gradients, np.float64), strict=True):
    form = g @ np.linalg.solve(matrix, g) / width
    wanted = GAMMA * rewards.std() * np.sqrt(form)
    # Float32 updates, and the spread of the rewards.
    np.testing.assert_allclose(bonus, wanted, rtol=2e-3)


def test_width_is_that_of_the_summed_outer_products(trained):
  check_widths("last_layer", *trained)


@pytest.mark.parametrize("confidence", ["diagonal", "full"])
def test_width_of_all_parameters_gradients(confidence):
  check_widths(confidence, *run(confidence, 20))


def test_fits_a_smooth_function(trained):
  model, state, _, _ = trained
  mix = jnp.asarray([1.0, 0.0], jnp.float32)
  estimate = jax.vmap(model.estimate(jax.random.key(0), state, mix))
  xs = np.random.default_rng(9).dirichlet(np.ones(E), 200).astype(np.float32)
  mean, _ = estimate(jnp.asarray(xs))
  wanted = np.array([truth(jnp.asarray(x))[0] for x in xs])
  # Means come back less the running mean of all rewards (a constant does not
  # change which weights are best): compare shapes. The function's own spread
  # is about 0.3.
  error = np.asarray(mean) - wanted
  assert error.std() < 0.1 < 0.25 < wanted.std()


def test_running_scale_is_that_of_all_rewards_seen():
  rng = np.random.default_rng(2)
  rewards = rng.normal(5, 2, (50, V)).astype(np.float32)
  counts = rng.integers(0, 2, (50, V)).astype(np.float32)
  scale = reward_model.init_scale()
  for reward, count in zip(rewards, counts, strict=True):
    scale = reward_model.update_scale(scale, reward, count)
  seen = rewards[counts > 0].astype(np.float64)
  np.testing.assert_allclose(scale.mean, seen.mean(), rtol=1e-5)
  np.testing.assert_allclose(reward_model.spread(scale), seen.std(), rtol=1e-4)


def test_bad_confidence():
  with pytest.raises(ValueError, match="confidence='half'"):
    neural_model(LEARNER, NUMBERS, confidence="half")


@pytest.mark.parametrize(
  "name", ["num_steps", "batch_size", "replay_capacity", "sparse_every"]
)
def test_bad_sizes_of_the_learner(name):
  with pytest.raises(ValueError, match=f"{name}=0"):
    dataclasses.replace(LEARNER, **{name: 0})
