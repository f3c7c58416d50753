"""The concave prior mean against batch regression, and what it spares."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tanbr_jax import bandits
from tanbr_jax.bandits import Feedback
from tanbr_jax.bandits.linear.concave_prior import (
  NOISE_SLOTS,
  fall,
  with_concave_prior,
)
from tanbr_jax.bandits.linear.linear_model import linear_model
from tanbr_jax.environments import mixes, synthetic
from tanbr_jax.online import rollout
from tanbr_jax.regression import polynomial

E, V, CONCAVITY, LAMBDA = 4, 2, 3.0, 0.05
MIX = jnp.asarray([0.3, 0.7], jnp.float32)


def _model(concavity=CONCAVITY):
  return with_concave_prior(
    linear_model(
      polynomial.fixed_features(E),
      num_tasks=V,
      exploration=0.0,
      regularisation=LAMBDA,
    ),
    concavity,
    num_tasks=V,
  )


def _learn(model, played, rewards, counts):
  key = jax.random.key(0)

  def step(state, row):
    return model.update(key, state, MIX, row[0], Feedback(*row[1:])), None

  state, _ = jax.lax.scan(step, model.init(key), (played, rewards, counts))
  return state


def _slots(rng):
  """Slots at the centre, which tell the noise, then slots all over."""
  centre = np.full((NOISE_SLOTS, E), 1 / E)
  played = np.concatenate([centre, rng.dirichlet(np.ones(E), 12)])
  counts = rng.integers(0, 3, (NOISE_SLOTS + 12, V)).astype(np.int32)
  counts[:NOISE_SLOTS] = [[2, 1], [1, 3], [0, 1], [2, 0]]
  rewards = rng.normal(size=counts.shape).astype(np.float32)
  return played.astype(np.float32), rewards, counts


def _noise(rewards, counts):
  """The pooled standard deviation of one request's reward within a task."""
  squares = freedom = 0.0
  for reward, count in zip(rewards.T, counts.T, strict=True):
    mean = np.average(reward, weights=count)
    squares += count @ (reward - mean) ** 2
    freedom += np.sum(count > 0) - 1
  return np.sqrt(squares / freedom)


def test_the_mean_is_that_of_ridge_regression_towards_the_prior():
  rng = np.random.default_rng(0)
  played, rewards, counts = _slots(rng)
  model = _model()
  state = _learn(model, played, rewards, counts)
  first = slice(NOISE_SLOTS)
  concavity = CONCAVITY * _noise(
    rewards[first].astype(np.float64), counts[first]
  )
  np.testing.assert_allclose(
    fall(jnp.float32(CONCAVITY), state), -concavity, rtol=1e-5
  )
  # The prior's coefficients: one on each square u_i^2, of 1, u, products.
  basis = polynomial.tangent_basis(E)
  rows, columns = np.triu_indices(E - 1)

  def phi(x):
    u = (np.asarray(x, np.float64) - 1 / E) @ basis
    return np.concatenate([[1.0], u, u[rows] * u[columns]])

  prior = np.concatenate([np.zeros(E), -concavity * (rows == columns)])
  design = np.stack([phi(x) for x in played])
  means = []
  for v in range(V):
    gram = design.T @ (counts[:, v, None] * design) + LAMBDA * np.eye(
      len(prior)
    )
    error = counts[:, v] * (rewards[:, v] - design @ prior)
    means.append(prior + np.linalg.solve(gram, design.T @ error))
  estimate = model.estimate(jax.random.key(0), state, MIX)
  for x in rng.dirichlet(np.ones(E), 4):
    got, _ = estimate(jnp.asarray(x, jnp.float32))
    wanted = 0.3 * phi(x) @ means[0] + 0.7 * phi(x) @ means[1]
    # Sixteen float32 updates of condition number about 1e2.
    np.testing.assert_allclose(got, wanted, atol=1e-4)


def test_without_a_task_seen_twice_the_noise_is_a_guess():
  """And it is never taken for less than a share of the rewards' spread."""
  played, rewards, counts = _slots(np.random.default_rng(1))
  alike = np.ones_like(rewards)
  one = jnp.float32(1)
  for told, wanted in ((counts * 0, -0.3), (counts, -0.02)):
    state = _learn(_model(), played, alike, told)
    np.testing.assert_allclose(fall(one, state), wanted, rtol=1e-6)


@functools.cache
def regrets():
  """Regret after 100 slots of uniform, without and with a concave prior."""
  sizes = {"num_experts": 20, "num_tasks": 3}
  environment = synthetic.synthetic(
    "quadratic", **sizes, task_mix=mixes.drift(num_tasks=3)
  )
  learner = functools.partial(bandits.multitask_ts, **sizes, num_fourier=4)
  played = [bandits.uniform(**sizes), learner(concavity=0.0), learner()]
  traces = [
    rollout.run(
      one, environment, num_rounds=100, seeds=range(3), progress=False
    )
    for one in played
  ]
  return [
    float(np.mean(np.sum(t.optimal_reward - t.expected_reward, axis=1)))
    for t in traces
  ]


@pytest.mark.slow
def test_it_spares_most_of_what_exploring_far_from_the_centre_costs():
  uniform, flat, concave = regrets()
  # 18 directions are unknown: no learner gains much within 100 slots.
  assert concave < 1.3 * uniform
  assert concave - uniform < 0.3 * (flat - uniform)


@pytest.mark.parametrize("value", [-1.0, float("nan")])
def test_bad_concavity_is_named(value):
  for name in ("multitask_ts", "tanbr"):
    with pytest.raises(ValueError, match=f"concavity .*got concavity={value}"):
      bandits.REGISTRY[name](num_experts=3, num_tasks=2, concavity=value)
