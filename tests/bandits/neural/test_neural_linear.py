"""Neural-linear's posterior against closed-form ridge regression."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from unwrapped import unwrapped

from tanbr_jax.bandits import Context, Feedback, neural_linear

E, V, SLOTS, LAMBDA, NOISE, BETA = 3, 2, 50, 0.2, 0.1, 0.8
MIX = jnp.asarray([0.4, 0.6], jnp.float32)


@pytest.fixture(scope="module")
def played():
  """A state after 50 slots; the network was trained after 20 and 40."""
  bandit = unwrapped(
    neural_linear(
      num_experts=E,
      num_tasks=V,
      retrain_every=20,
      noise=NOISE,
      exploration=BETA,
      regularisation=LAMBDA,
      hidden=(8, 5),
      num_steps=30,
      replay_capacity=64,
    )
  )

  def step(state, row):
    t, noise, count = row
    key = jax.random.key(t)
    decision = bandit.select(key, state, Context(MIX))
    x = decision.merge_weights
    reward = jnp.stack([2 - jnp.sum((x - 0.4) ** 2), x[0]]) + noise
    feedback = Feedback(reward, count)
    state = bandit.update(key, state, Context(MIX), decision, feedback)
    return state, state.model.learner.params["params"]["output"]["bias"]

  rng = np.random.default_rng(1)
  noises = NOISE * rng.standard_normal((SLOTS, V)).astype(np.float32)
  counts = rng.integers(0, 4, (SLOTS, V)).astype(np.int32)
  rows = (jnp.arange(SLOTS), noises, counts)
  run = jax.jit(lambda s: jax.lax.scan(step, s, rows))
  state, biases = run(bandit.init(jax.random.key(0)))
  return bandit, state.model, np.asarray(biases), counts


def closed_form(bandit, model, task, counts):
  """A, w and the weighted residual of a task, in float64."""
  network = bandit.select.args[0].init.args[0].learner.network
  weights = model.learner.replay.weights[:SLOTS]
  features = jax.vmap(
    lambda x: network.apply(model.learner.params, x, features=True)
  )(weights[: model.learner.replay.num_slots])
  features = np.asarray(features, np.float64)
  rewards = np.asarray(model.learner.replay.rewards, np.float64)
  rewards = rewards[: len(features), task]
  count = counts[np.any(counts > 0, axis=1)][:, task].astype(np.float64)
  matrix = LAMBDA * np.eye(features.shape[1])
  matrix += (features * count[:, None]).T @ features
  mean = np.linalg.solve(matrix, features.T @ (count * rewards))
  error = np.sum(count * (rewards - features @ mean) ** 2)
  return np.linalg.inv(matrix), mean, error + LAMBDA * np.sum(mean**2)


@pytest.mark.parametrize("task", range(V))
def test_posterior_is_ridge_on_the_networks_features(played, task):
  bandit, model, _, counts = played
  covariance, mean, error = closed_form(bandit, model, task, counts)
  posterior = model.posterior
  root = np.asarray(posterior.root.high[task], np.float64)
  root += np.asarray(posterior.root.low[task], np.float64)
  # Float32 factors of 40 rows, then ten updates; lambda = .2 against sums of
  # squares of some 50 makes the condition number a few hundred.
  np.testing.assert_allclose(root @ root.T, covariance, rtol=1e-3, atol=1e-4)
  ours = np.asarray(posterior.weights + posterior.weights_low)[:, task]
  np.testing.assert_allclose(ours, mean, rtol=2e-3, atol=1e-4)
  # The sum of normalised innovations is the ridge objective at its minimum.
  np.testing.assert_allclose(model.squares[task], error, rtol=1e-3)
  assert float(model.num_seen[task]) == np.sum(counts[:, task] > 0)


def test_the_network_is_trained_now_and_then_only(played):
  _, model, biases, counts = played
  learnt = np.cumsum(np.any(counts > 0, axis=1))
  changes = np.flatnonzero(np.any(np.diff(biases, axis=0) != 0, axis=1)) + 1
  first = [int(np.argmax(learnt == slots)) for slots in (20, 40)]
  assert changes.tolist() == first
  assert model.learner.replay.num_slots == learnt[-1]


def test_samples_have_the_posteriors_moments(played):
  bandit, model, _, counts = played
  draws = 4000
  x = jnp.asarray([0.1, 0.3, 0.6], jnp.float32)
  estimate = bandit.select.args[0].estimate
  keys = jax.random.split(jax.random.key(3), draws)
  means, samples = jax.jit(jax.vmap(lambda key: estimate(key, model, MIX)(x)))(
    keys
  )
  network = bandit.select.args[0].init.args[0].learner.network
  phi = network.apply(model.learner.params, x, features=True)
  phi = np.asarray(phi, np.float64)
  mix = np.asarray(MIX, np.float64)
  wanted, variance = 0.0, 0.0
  for task in range(V):
    covariance, mean, error = closed_form(bandit, model, task, counts)
    # A prior of eight slots with the noise that was given, in spreads.
    seen = np.sum(counts[:, task] > 0)
    spread = np.sqrt(float(model.learner.replay.scale.square))
    noise = (8 * (NOISE * spread) ** 2 + error) / (8 + seen)
    wanted += mix[task] * phi @ mean
    variance += mix[task] ** 2 * noise * phi @ covariance @ phi
  np.testing.assert_allclose(means[0], wanted, rtol=1e-3)
  deviation = BETA * np.sqrt(variance)
  # Standard errors: .016 deviations of the mean, 1.1 % of the deviation.
  assert abs(np.mean(samples)) < 4 * 0.016 * deviation
  np.testing.assert_allclose(np.std(samples), deviation, rtol=0.045)


def test_bad_input():
  with pytest.raises(ValueError, match="retrain_every=0"):
    neural_linear(num_experts=E, num_tasks=V, retrain_every=0)
  with pytest.raises(ValueError, match="regularisation=0"):
    neural_linear(num_experts=E, num_tasks=V, regularisation=0.0)
  with pytest.raises(ValueError, match="noise=-1"):
    neural_linear(num_experts=E, num_tasks=V, noise=-1.0)
