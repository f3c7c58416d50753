"""The concave prior mean against batch regression, and what it spares."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tanbr_jax import bandits
from tanbr_jax.bandits import Feedback
from tanbr_jax.bandits.linear.concave_prior import with_concave_prior
from tanbr_jax.bandits.linear.linear_model import linear_model
from tanbr_jax.environments import mixes, synthetic
from tanbr_jax.online import rollout
from tanbr_jax.regression import polynomial

E, V, CONCAVITY, LAMBDA = 4, 2, 3.0, 0.05


def test_the_mean_is_that_of_ridge_regression_towards_the_prior():
  features = polynomial.fixed_features(E)
  model = with_concave_prior(
    linear_model(features, num_tasks=V, exploration=0.0, regularisation=LAMBDA),
    CONCAVITY,
  )
  rng = np.random.default_rng(0)
  played = rng.dirichlet(np.ones(E), 12).astype(np.float32)
  rewards = rng.normal(size=(12, V)).astype(np.float32)
  counts = rng.integers(0, 3, (12, V)).astype(np.int32)
  mix = jnp.asarray([0.3, 0.7], jnp.float32)
  key = jax.random.key(0)

  def step(state, row):
    return model.update(key, state, mix, row[0], Feedback(*row[1:])), None

  state, _ = jax.lax.scan(step, model.init(key), (played, rewards, counts))
  # The prior's coefficients: -3 on each square u_i^2, of 1, u, products.
  basis = polynomial.tangent_basis(E)
  rows, columns = np.triu_indices(E - 1)

  def phi(x):
    u = (np.asarray(x, np.float64) - 1 / E) @ basis
    return np.concatenate([[1.0], u, u[rows] * u[columns]])

  prior = np.concatenate([np.zeros(E), -CONCAVITY * (rows == columns)])
  design = np.stack([phi(x) for x in played])
  means = []
  for v in range(V):
    gram = design.T @ (counts[:, v, None] * design) + LAMBDA * np.eye(
      len(prior)
    )
    error = counts[:, v] * (rewards[:, v] - design @ prior)
    means.append(prior + np.linalg.solve(gram, design.T @ error))
  estimate = model.estimate(key, state, mix)
  for x in rng.dirichlet(np.ones(E), 4):
    got, _ = estimate(jnp.asarray(x, jnp.float32))
    wanted = 0.3 * phi(x) @ means[0] + 0.7 * phi(x) @ means[1]
    # Twelve float32 updates of condition number about 1e2.
    np.testing.assert_allclose(got, wanted, atol=1e-4)


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
