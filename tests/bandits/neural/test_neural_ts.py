"""NeuralTS samples have the moments of its formula."""

import jax
import jax.numpy as jnp
import numpy as np
from unwrapped import unwrapped

from tanbr_jax.bandits import Context, Feedback, neural_ts

E, V, NU, LAMBDA, DRAWS = 3, 2, 0.7, 0.2, 4000
MIX = jnp.asarray([0.3, 0.7], jnp.float32)


def learn(bandit, num_slots=5):
  """Plays what the bandit picks; returns the state."""

  def step(state, t):
    key = jax.random.key(t)
    decision = bandit.select(key, state, Context(MIX))
    x = decision.merge_weights
    feedback = Feedback(jnp.stack([x[0], x[1]]), jnp.ones(V, jnp.int32))
    return bandit.update(key, state, Context(MIX), decision, feedback), None

  start = bandit.init(jax.random.key(0))
  return jax.jit(lambda s: jax.lax.scan(step, s, jnp.arange(num_slots))[0])(
    start
  )


def wanted_deviations(bandit, state, xs):
  """nu sqrt(lambda g' Z^-1 g / m) of each x, from the state's own Z."""
  learner = bandit.select.args[0].init.args[0].learner
  params, kept = state.model.learner.params, state.model.confidence
  gradients = jax.vmap(
    lambda x: learner.network.apply(params, x, features=True)
  )(xs)
  root = np.asarray(kept.high, np.float64) + np.asarray(kept.low, np.float64)
  widths = np.linalg.norm(np.asarray(gradients, np.float64) @ root, axis=1)
  spread = np.sqrt(state.model.learner.replay.scale.square)
  return spread * NU * np.sqrt(LAMBDA / 6) * widths


def check_moments(draws, deviation):
  # Standard errors: sd / sqrt(4000) = .016 sd of the mean, .011 sd of the
  # deviation; a normal has 95.4 % within two deviations (error .3 %).
  draws = np.asarray(draws, np.float64)
  assert abs(draws.mean()) < 4 * 0.016 * deviation
  np.testing.assert_allclose(draws.std(), deviation, rtol=4 * 0.011)
  np.testing.assert_allclose(
    np.mean(abs(draws) < 2 * deviation), 0.9545, atol=0.014
  )


def test_a_candidates_sample_is_normal_with_sigma():
  # One candidate a round, so that what is played is what was drawn.
  bandit = unwrapped(
    neural_ts(
      num_experts=E,
      num_tasks=V,
      num_candidates=1,
      exploration=NU,
      regularisation=LAMBDA,
      hidden=(6,),
      replay_capacity=16,
    )
  )
  state = learn(bandit)
  keys = jax.random.split(jax.random.key(7), DRAWS)
  decisions = jax.jit(jax.vmap(bandit.select, (0, None, None)))(
    keys, state, Context(MIX)
  )
  deviations = wanted_deviations(bandit, state, decisions.merge_weights)
  check_moments(decisions.aux["exploration_bonus"] / deviations, 1.0)
