"""The slot's reward and its range against hand-made numbers."""

import jax.numpy as jnp
import numpy as np
import pytest

from tanbr_jax.bandits import Feedback
from tanbr_jax.bandits.arms import slot_reward

MIX = jnp.asarray([0.5, 0.3, 0.2], jnp.float32)


def reward_of(rewards, counts):
  feedback = Feedback(
    jnp.asarray(rewards, jnp.float32), jnp.asarray(counts, jnp.int32)
  )
  return slot_reward.slot_reward(MIX, feedback)


def test_the_mix_is_renormalised_over_what_was_seen():
  got = reward_of([1.0, np.nan, 2.0], [4, 9, 1])
  # Shares .5 / .7 and .2 / .7.
  np.testing.assert_allclose(got.value, (0.5 * 1 + 0.2 * 2) / 0.7, rtol=1e-6)
  np.testing.assert_allclose(got.mix, [5 / 7, 0, 2 / 7], rtol=1e-6)
  wanted = (5 / 7) ** 2 / 4 + (2 / 7) ** 2
  np.testing.assert_allclose(got.variance, wanted, rtol=1e-6)
  assert bool(got.seen)


@pytest.mark.parametrize("counts", [[0, 0, 0], [0, 1, 0]])
def test_nothing_seen(counts):
  got = reward_of([1.0, np.inf, 2.0], counts)
  assert not bool(got.seen)
  assert float(got.value) == 0
  np.testing.assert_array_equal(got.mix, np.zeros(3))


def test_a_range_grows_or_clips():
  bounds = slot_reward.make_range(None)
  assert float(slot_reward.width(bounds)) == 0
  assert float(slot_reward.rescale(bounds, jnp.float32(7))) == 0.5
  for values, seen in (([-1.0, 50.0], [1, 0]), ([3.0, -50.0], [1, 0])):
    bounds = slot_reward.widen(
      bounds, jnp.asarray(values, jnp.float32), jnp.asarray(seen) > 0
    )
  assert float(slot_reward.width(bounds)) == 4
  assert float(slot_reward.rescale(bounds, jnp.float32(0))) == 0.25
  given = slot_reward.make_range((0.0, 2.0))
  given = slot_reward.widen(given, jnp.full(1, 9.0), jnp.ones(1, bool))
  assert float(slot_reward.width(given)) == 2
  assert float(slot_reward.rescale(given, jnp.float32(9))) == 1


@pytest.mark.parametrize("bounds", [(1.0, 1.0), (0.0, np.inf), (np.nan, 1.0)])
def test_bad_bounds(bounds):
  with pytest.raises(ValueError, match="reward_range must be"):
    slot_reward.make_range(bounds)
