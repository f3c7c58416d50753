"""Exp3 against the paper's weights in float64, and its estimates' mean."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from unwrapped import unwrapped

from tanbr_jax import bandits
from tanbr_jax.bandits import Context, Feedback
from tanbr_jax.bandits.arms.exp3 import probabilities

E, V, T, SCALE = 2, 2, 80, 1.3
SIZES = {"num_experts": E, "num_tasks": V}
MEANS = np.array([[0.8, 0.1], [0.3, 0.9], [0.5, 0.6]])


@pytest.mark.parametrize(
  "given, horizon", [(None, 0.0), ((-0.5, 1.5), 0.0), ((-0.5, 1.5), 200.0)]
)
def test_weights_are_those_of_the_paper(given, horizon):
  bandit = bandits.exp3(
    **SIZES, exploration=SCALE, horizon=horizon, reward_range=given
  )
  select, update = jax.jit(bandit.select), jax.jit(bandit.update)
  rng, weights = np.random.default_rng(0), np.ones(3)
  lowest, highest = given or (np.inf, -np.inf)
  rounds = 0
  state = bandit.init(jax.random.key(0))
  for t in range(T):
    mix = rng.dirichlet(np.ones(V))
    context = Context(jnp.asarray(mix, jnp.float32))
    decision = select(jax.random.key(t), state, context)
    square = 3 * np.log(3) / ((np.e - 1) * max(rounds + 1, horizon))
    gamma = min(1, SCALE * square**0.5)
    np.testing.assert_allclose(decision.aux["epsilon"], gamma, rtol=1e-6)
    chances = (1 - gamma) * weights / weights.sum() + gamma / 3
    arm = int(decision.aux["arm"])
    # The logarithms of the weights carry some ten roundings by the end.
    np.testing.assert_allclose(
      decision.aux["probability"], chances[arm], rtol=1e-4
    )
    reward = MEANS[arm] + rng.normal(0, 0.1, V)
    count = np.array([1, 0 if t % 5 == 0 else 2])
    if t % 11 == 0:
      count[:] = 0
    feedback = Feedback(
      jnp.asarray(reward, jnp.float32), jnp.asarray(count, jnp.int32)
    )
    state = update(jax.random.key(t), state, context, decision, feedback)
    shares = mix * (count > 0)
    if not shares.sum():
      continue
    rounds += 1
    gain = shares @ reward / shares.sum()
    if given is None:
      lowest, highest = min(lowest, gain), max(highest, gain)
    unit = (
      np.clip((gain - lowest) / (highest - lowest), 0, 1)
      if (highest > lowest)
      else 0.5
    )
    weights[arm] *= np.exp(gamma * unit / chances[arm] / 3)
  np.testing.assert_allclose(
    probabilities(state.bandit.log_weights, 0.0),
    weights / weights.sum(),
    rtol=1e-4,
  )


def test_arms_are_drawn_with_the_probability_that_is_told():
  bandit = unwrapped(bandits.exp3(**SIZES, horizon=48.0))
  state = bandit.init(jax.random.key(0))
  state = state._replace(log_weights=jnp.asarray([0.0, -1.0, -4.0]))
  context = Context(jnp.asarray([0.5, 0.5]))
  draw = jax.jit(jax.vmap(lambda k: bandit.select(k, state, context).aux))
  aux = draw(jax.random.split(jax.random.key(1), 4000))
  shares = np.bincount(np.asarray(aux["arm"]), minlength=3) / 4000
  weights = np.exp([0.0, -1.0, -4.0])
  gamma = (3 * np.log(3) / ((np.e - 1) * 48)) ** 0.5
  wanted = (1 - gamma) * weights / weights.sum() + gamma / 3
  # 5 standard errors of a share.
  np.testing.assert_allclose(shares, wanted, atol=5 * 0.5 / 4000**0.5)


@pytest.mark.parametrize(
  "name, value",
  [("exploration", 0.0), ("exploration", np.nan), ("horizon", -1.0)],
)
def test_bad_input(name, value):
  with pytest.raises(ValueError, match=f"{name}={value}"):
    bandits.exp3(**SIZES, **{name: value})
