"""NeuralTS samples have the moments of its formula."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tanbr_jax.bandits import Context, Feedback, neural_ts

E, V, NU, LAMBDA, DRAWS = 3, 2, 0.7, 0.2, 4000
MIX = jnp.asarray([0.3, 0.7], jnp.float32)
X = jnp.asarray([0.2, 0.5, 0.3], jnp.float32)
OPTIONS = dict(
  num_experts=E,
  num_tasks=V,
  exploration=NU,
  regularisation=LAMBDA,
  hidden=(6,),
  normalise_rewards=False,
  initialisation="fan_in",
  replay_capacity=16,
)


def learn(bandit, num_slots=5):
  """Plays X's neighbours; returns the state."""

  def step(state, t):
    key = jax.random.key(t)
    decision = bandit.select(key, state, Context(MIX))
    feedback = Feedback(jnp.ones(V), jnp.ones(V, jnp.int32))
    return bandit.update(key, state, Context(MIX), decision, feedback), None

  start = bandit.init(jax.random.key(0))
  return jax.jit(lambda s: jax.lax.scan(step, s, jnp.arange(num_slots))[0])(
    start
  )


def wanted_deviation(bandit, state, x):
  """nu sqrt(lambda g' Z^-1 g / m) of x, from the state's own Z."""
  structure = bandit.select.args[1].model.init.args[0]
  network, params = structure.network, state.model.params
  if structure.confidence == "last_layer":
    gradient = network.apply(params, x, method="features")
  else:
    gradient = jax.grad(lambda p: jnp.dot(MIX, network.apply(p, x)))(params)
    gradient = jax.flatten_util.ravel_pytree(gradient)[0]
  gradient = np.asarray(gradient, np.float64)
  kept = state.model.confidence
  root = np.asarray(kept.high, np.float64) + np.asarray(kept.low, np.float64)
  if structure.confidence == "diagonal":
    form = np.sum(gradient**2 / root)
  else:
    form = gradient @ (root @ root.T) @ gradient
  return NU * np.sqrt(LAMBDA * form / 6)


def check_moments(draws, deviation):
  # Standard errors: sd / sqrt(4000) = .016 sd of the mean, .011 sd of the
  # deviation; a normal has 95.4 % within two deviations (error .3 %).
  draws = np.asarray(draws, np.float64)
  assert abs(draws.mean()) < 4 * 0.016 * deviation
  np.testing.assert_allclose(draws.std(), deviation, rtol=4 * 0.011)
  np.testing.assert_allclose(
    np.mean(abs(draws) < 2 * deviation), 0.9545, atol=0.014
  )


@pytest.mark.parametrize("confidence", ["last_layer", "diagonal", "full"])
def test_a_candidates_sample_is_normal_with_sigma(confidence):
  # One candidate, so that what is played is what was drawn.
  bandit = neural_ts(
    candidates="grid", num_candidates=1, confidence=confidence, **OPTIONS
  )
  state = learn(bandit)
  keys = jax.random.split(jax.random.key(7), DRAWS)
  decisions = jax.jit(jax.vmap(bandit.select, (0, None, None)))(
    keys, state, Context(MIX)
  )
  x = decisions.merge_weights[0]
  deviation = wanted_deviation(bandit, state, x)
  check_moments(decisions.aux["exploration_bonus"], deviation)


@pytest.mark.parametrize("confidence", ["last_layer", "diagonal"])
def test_the_smooth_sample_has_the_same_distribution(confidence):
  bandit = neural_ts(
    candidates="ascent", num_candidates=2, confidence=confidence, **OPTIONS
  )
  state = learn(bandit, 2)
  model = bandit.select.args[1].model
  keys = jax.random.split(jax.random.key(8), DRAWS)
  bonus = jax.jit(
    jax.vmap(lambda key: model.estimate(key, state.model, MIX)(X)[1])
  )
  check_moments(bonus(keys), wanted_deviation(bandit, state, X))


def test_the_smooth_sample_is_one_function_in_a_round():
  bandit = neural_ts(candidates="ascent", num_candidates=2, **OPTIONS)
  model = bandit.select.args[1].model
  state = model.init(jax.random.key(0))
  estimate = model.estimate(jax.random.key(1), state, MIX)
  near = estimate(X + jnp.asarray([1e-4, -1e-4, 0.0]))[1]
  np.testing.assert_allclose(near, estimate(X)[1], atol=1e-3)
