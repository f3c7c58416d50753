"""The Bayesian linear model against a float64 closed form."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tanbr_jax.bandits import Feedback
from tanbr_jax.bandits.linear.linear_model import linear_model
from tanbr_jax.regression import polynomial

E, V, BETA, LAMBDA = 4, 3, 0.7, 0.05


@pytest.fixture(scope="module")
def features():
  return polynomial.fixed_features(E, num_fourier=5, seed=3)


@pytest.fixture(scope="module")
def history():
  rng = np.random.default_rng(0)
  weights = rng.dirichlet(np.ones(E), 60).astype(np.float32)
  rewards = rng.normal(0.3, 1, (60, V)).astype(np.float32)
  counts = rng.integers(0, 4, (60, V)).astype(np.int32)
  return weights, rewards, counts


def fit(model, history):
  def step(state, row):
    weights, reward, count = row
    mix = jnp.full(V, 1 / V, jnp.float32)
    feedback = Feedback(reward, count)
    return model.update(jax.random.key(0), state, mix, weights, feedback), None

  state = model.init(jax.random.key(0))
  return jax.jit(lambda s, h: jax.lax.scan(step, s, h)[0])(
    state, tuple(map(jnp.asarray, history))
  )


def closed_form(features, history):
  """Mean [P, V], covariance [V, P, P] and noise by batch ridge regression."""
  weights, rewards, counts = history
  phi = np.array(
    [polynomial.apply_features(features, jnp.asarray(x)) for x in weights],
    np.float64,
  )
  means, inverses = [], []
  squares, seen = 0.0, 0
  for v in range(V):
    gram = LAMBDA * np.eye(phi.shape[1])
    moment = np.zeros(phi.shape[1])
    for t in range(len(phi)):
      if counts[t, v]:
        inverse = np.linalg.inv(gram)
        error = rewards[t, v] - phi[t] @ inverse @ moment
        scale = 1 / counts[t, v] + phi[t] @ inverse @ phi[t]
        squares, seen = squares + error**2 / scale, seen + 1
        gram += counts[t, v] * np.outer(phi[t], phi[t])
        moment += counts[t, v] * rewards[t, v] * phi[t]
    means.append(np.linalg.solve(gram, moment))
    inverses.append(np.linalg.inv(gram))
  return np.array(means).T, np.array(inverses), squares / seen


def test_ucb_is_the_posterior_of_masked_and_counted_rewards(features, history):
  model = linear_model(
    features, num_tasks=V, exploration=BETA, regularisation=LAMBDA
  )
  state = fit(model, history)
  mix = np.array([0.6, 0.3, 0.1], np.float32)
  estimate = model.estimate(jax.random.key(0), state, jnp.asarray(mix))
  mean, inverse, noise = closed_form(features, history)
  for x in np.random.default_rng(1).dirichlet(np.ones(E), 5):
    x = jnp.asarray(x, jnp.float32)
    phi = np.asarray(polynomial.apply_features(features, x), np.float64)
    spread = sum(mix[v] ** 2 * phi @ inverse[v] @ phi for v in range(V))
    got_mean, got_bonus = estimate(x)
    # 60 float32 updates of condition number about 1e3.
    np.testing.assert_allclose(got_mean, phi @ mean @ mix, atol=2e-4)
    wanted = BETA * np.sqrt(noise * spread)
    np.testing.assert_allclose(got_bonus, wanted, rtol=1e-3)


def test_thompson_draws_have_the_ucb_width_as_their_deviation(
  features, history
):
  common = {"num_tasks": V, "exploration": BETA, "regularisation": LAMBDA}
  ucb = linear_model(features, **common)
  thompson = linear_model(features, rule="thompson", **common)
  state = fit(ucb, history)
  mix = jnp.asarray([0.6, 0.3, 0.1], jnp.float32)
  x = jnp.asarray([0.7, 0.1, 0.1, 0.1], jnp.float32)
  _, width = ucb.estimate(jax.random.key(0), state, mix)(x)
  draw = jax.jit(jax.vmap(lambda key: thompson.estimate(key, state, mix)(x)[1]))
  draws = np.asarray(draw(jax.random.split(jax.random.key(1), 4000)))
  # 4,000 normal draws: 5 standard errors of mean and deviation.
  assert abs(draws.mean()) < 5 * width / 4000**0.5
  np.testing.assert_allclose(draws.std(), width, rtol=5 / 8000**0.5)


def test_bad_input(features):
  with pytest.raises(ValueError, match="greedy"):
    linear_model(
      features, num_tasks=V, exploration=1, regularisation=1, rule="greedy"
    )
  with pytest.raises(ValueError, match="-1"):
    linear_model(features, num_tasks=V, exploration=1, regularisation=-1)
