"""Exploration that is earned, against a NumPy loop on a model that is known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from tanbr_jax import bandits
from tanbr_jax.bandits import Feedback
from tanbr_jax.bandits.linear.earned_exploration import (
  with_earned_exploration,
)
from tanbr_jax.bandits.reward_model import RewardModel

MIX = jnp.ones(1, jnp.float32)


def _slope(key):
  return jnp.zeros(3, jnp.float32)


def _estimate(key, slope, task_mix):
  return lambda weights: (jnp.dot(slope, weights), jnp.float32(2.0))


def _take(key, slope, task_mix, weights, feedback):
  """The rewards are the slope from now on."""
  return feedback.task_reward


MODEL = RewardModel(Partial(_slope), Partial(_estimate), Partial(_take))


def bonuses(least, slopes, played, counts):
  """The bonus before each slot; slot t's feedback is the slope of t + 1."""
  model = with_earned_exploration(MODEL, least)

  def step(state, slot):
    slope, weights, count = slot
    _, bonus = model.estimate(None, state, MIX)(weights)
    feedback = Feedback(slope, jnp.full(3, count, jnp.int32))
    return model.update(None, state, MIX, weights, feedback), bonus

  slots = jax.tree.map(jnp.asarray, (slopes, played, counts))
  return jax.lax.scan(step, model.init(None), slots)[1]


def test_the_bonus_is_the_share_of_the_gains_in_all_that_was_moved():
  rng = np.random.default_rng(0)
  slopes = rng.normal(0.2, 1, (80, 3)).astype(np.float32)
  played = rng.dirichlet(np.ones(3), 80).astype(np.float32)
  counts = (rng.random(80) < 0.8).astype(np.int32)
  found = bonuses(0.25, slopes, played, counts)
  slope, gains, sizes = np.zeros(3), 0.0, 0.0
  for t in range(80):
    share = gains / sizes if sizes else 0.0
    wanted = 2 * (0.25 + 0.75 * max(share, 0.0) ** 2)
    np.testing.assert_allclose(found[t], wanted, rtol=1e-4)
    # What a slot gained is told by what was known before it.
    if counts[t]:
      gain = slope @ (played[t].astype(np.float64) - 1 / 3)
      gains, sizes = 0.98 * gains + gain, 0.98 * sizes + abs(gain)
    slope = slopes[t].astype(np.float64)


def test_the_ends_are_the_least_and_all():
  up = np.tile(np.float32([1, 0, 0]), (30, 1))
  ones = np.ones(30, np.int32)
  found = bonuses(0.25, up, up, ones)
  # Two slots know nothing: the slope, then its gain. Then every slot is a gain.
  np.testing.assert_allclose(found, [0.5] * 2 + [2.0] * 28, rtol=1e-6)
  np.testing.assert_allclose(bonuses(0.25, -up, up, ones), 0.5, rtol=1e-6)
  np.testing.assert_allclose(bonuses(1.0, -up, up, ones), 2.0, rtol=1e-6)


@pytest.mark.parametrize("name", ["multitask_ts", "tanbr"])
@pytest.mark.parametrize("value", [-0.1, 1.5])
def test_a_share_outside_of_its_range_is_named(name, value):
  with pytest.raises(ValueError, match=f"got least_exploration={value}"):
    bandits.REGISTRY[name](num_experts=3, num_tasks=2, least_exploration=value)
