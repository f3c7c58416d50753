"""The neural model's statistics against NumPy, and that it fits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tanbr_jax.bandits import Feedback, reward_model
from tanbr_jax.bandits.neural.neural_model import neural_model
from tanbr_jax.bandits.neural.neural_structure import Numbers, Structure

E, V, LAMBDA, GAMMA = 3, 2, 0.5, 1.5
NUMBERS = Numbers(GAMMA, LAMBDA, 0.0, 1e-2)
SHAPES = Structure(num_experts=E, num_tasks=V, hidden=(16, 16), num_steps=4)


def truth(x):
  return jnp.stack([3 - 4 * (x[0] - 0.5) ** 2, 2 * x[1] + x[2] ** 2])


@pytest.fixture(scope="module")
def trained():
  """A state after 400 slots, and the last-layer features that were played."""
  model = neural_model(SHAPES, NUMBERS)
  xs = np.random.default_rng(0).dirichlet(np.ones(E), 400).astype(np.float32)
  mix = jnp.full(V, 0.5, jnp.float32)

  def step(state, row):
    x, key = row
    network = SHAPES.network
    phi = network.apply(state.params, x, method="features")
    feedback = Feedback(truth(x), jnp.ones(V, jnp.int32))
    return model.update(key, state, mix, x, feedback), phi

  keys = jax.random.split(jax.random.key(0), 400)
  run = jax.jit(lambda s: jax.lax.scan(step, s, (jnp.asarray(xs), keys)))
  state, features = run(model.init(jax.random.key(1)))
  return model, state, xs, np.asarray(features, np.float64)


def test_width_is_that_of_the_summed_outer_products(trained):
  model, state, xs, features = trained
  width = SHAPES.hidden[-1]
  matrix = LAMBDA * np.eye(width + 1)
  for phi in features:
    matrix += np.outer(phi, phi) / width
  rewards = np.array([truth(jnp.asarray(x)) for x in xs])
  estimate = model.estimate(
    jax.random.key(0), state, jnp.asarray([0.5, 0.5], jnp.float32)
  )
  for x in xs[:4]:
    x = jnp.asarray(x)
    phi = SHAPES.network.apply(state.params, x, method="features")
    phi = np.asarray(phi, np.float64)
    form = phi @ np.linalg.solve(matrix, phi) / width
    wanted = GAMMA * rewards.std() * np.sqrt(form)
    # 400 float32 updates, and the spread of 800 rewards.
    np.testing.assert_allclose(estimate(x)[1], wanted, rtol=2e-3)


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


@pytest.mark.parametrize(
  "change, words",
  [
    ({"confidence": "half"}, "half"),
    ({"batch_size": 0}, "batch_size=0"),
    ({"num_steps": 0}, "num_steps=0"),
  ],
)
def test_bad_input(change, words):
  shapes = Structure(num_experts=E, num_tasks=V, **change)
  with pytest.raises(ValueError, match=words):
    neural_model(shapes, NUMBERS)
