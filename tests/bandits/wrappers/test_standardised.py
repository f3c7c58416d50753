"""Units of rewards against a slow loop, and what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from tanbr_jax.bandits import Bandit, Context, Decision, Feedback
from tanbr_jax.bandits.wrappers.standardised import (
  MOST_FIRST,
  MOST_UNITS,
  REACH,
  init_units,
  learn_units,
  standardised,
)

V = 3
CONTEXT = Context(jnp.full(V, 1 / V))
PLAY = Decision(jnp.ones(2), {})


def keep_feedback(key, state, context, decision, feedback):
  return feedback


# Remembers what it was last given, and predicts 2 with a bonus of 3.
SPY = Bandit(
  Partial(
    lambda key: Feedback(
      jnp.zeros(V),
      jnp.zeros(V, jnp.int32),
      gradient=jnp.zeros(2),
      gradient_count=jnp.int32(0),
    )
  ),
  Partial(
    lambda key, state, context: Decision(
      jnp.ones(2),
      {"predicted_reward": jnp.float32(2), "exploration_bonus": jnp.float32(3)},
    )
  ),
  Partial(keep_feedback),
)


def show(bandit, slots):
  """What the wrapped bandit was given in each slot, and the states after."""

  def step(state, slot):
    feedback = Feedback(
      *slot, gradient=jnp.arange(2.0), gradient_count=jnp.int32(1)
    )
    state = bandit.update(jax.random.key(0), state, CONTEXT, PLAY, feedback)
    return state, state

  rewards, counts = slots
  slots = jnp.asarray(rewards, jnp.float32), jnp.asarray(counts, jnp.int32)
  start = bandit.init(jax.random.key(0))
  states = jax.jit(lambda: jax.lax.scan(step, start, slots)[1])()
  return states.bandit, states.units


def slow(rewards, counts):
  """Standardised rewards and counts of every slot, in float64."""
  offset, scale, limit, refused = None, None, MOST_FIRST, 0
  for row, count in zip(rewards, counts, strict=True):
    seen = [v for v in range(V) if count[v] and np.isfinite(row[v])]
    taken = [v for v in seen if abs(row[v] - (offset or 0)) <= limit]
    if taken and offset is None:
      offset = sorted(row[v] for v in taken)[(len(taken) - 1) // 2]
    largest = max((abs(row[v] - offset) for v in taken), default=0)
    if scale is None and largest > 0:
      scale, limit = largest, 0
    if scale is not None:
      limit = max(limit, REACH * largest)
    if len(taken) < len(seen):
      refused += len(seen) - len(taken)
      limit = limit * REACH
    if scale is not None:
      limit = min(limit, MOST_UNITS * scale)
    found = [
      (row[v] - offset) / (scale or np.inf) if v in taken else 0
      for v in range(V)
    ]
    yield found, [count[v] * (v in taken) for v in range(V)], refused


def stream():
  """Rewards around 3 that widen on the way, with bad ones among them."""
  rng = np.random.default_rng(0)
  rewards = 3 + 0.2 * rng.normal(size=(60, V))
  counts = rng.integers(0, 3, (60, V))
  counts[0], counts[1], rewards[1] = 0, 1, 3.25
  rewards[0] = rewards[5, 0] = np.nan
  rewards[2, 1], rewards[20] = 1e30, -3e38
  # From here on the rewards' scale is 150,000 times what it was.
  rewards[40:] = 3 + 3e4 * rng.normal(size=(20, V))
  return rewards.astype(np.float32).astype(float), counts


def test_units_are_those_of_a_slow_loop():
  rewards, counts = stream()
  given, units = show(standardised(SPY), (rewards, counts))
  rows = list(slow(rewards, counts))
  wanted, taken, refused = map(np.array, zip(*rows, strict=True))
  # One float32 subtraction of numbers near 3 and a division.
  np.testing.assert_allclose(given.task_reward, wanted, rtol=1e-5, atol=1e-5)
  np.testing.assert_array_equal(given.task_count, taken)
  np.testing.assert_array_equal(units.num_refused, refused)
  # The gradient (0, 1) is told in the scale too, where there is one.
  scale = np.asarray(units.scale)
  slope = np.divide(1, scale, out=np.zeros(60), where=scale > 0)
  np.testing.assert_allclose(given.gradient[:, 1], slope, rtol=1e-6)
  np.testing.assert_array_equal(given.gradient_count, scale > 0)
  # What lies in the new scale is learnt from after a few refusing slots.
  late = np.flatnonzero(np.diff(refused[40:]) > 0)
  assert refused[-1] > 4 and late.max() < 6


@pytest.mark.parametrize("scale, offset", [(0.01, 1.0), (100.0, -1e4)])
def test_r_and_a_r_plus_b_are_given_alike(scale, offset):
  rewards, counts = stream()
  rewards[np.abs(rewards) > 1e29] = np.inf
  one, _ = show(standardised(SPY), (rewards, counts))
  other, _ = show(standardised(SPY), (scale * rewards + offset, counts))
  # a r + b is known to half a unit in the last place of 103 a, 3.8e-6 a, and
  # so is the offset; the scale is a deviation of at least .05 a here.
  size = 1 + np.abs(one.task_reward)
  error = np.abs(one.task_reward - other.task_reward) / size
  assert error.max() < 4 * 3.8e-6 / 0.05
  np.testing.assert_array_equal(one.task_count, other.task_count)


def test_rewards_all_alike_are_zero_until_one_is_not():
  rewards = np.full((4, V), 7.7)
  rewards[1, 0] = np.nextafter(np.float32(7.7), np.float32(8))
  rewards[3] = 7.7, 7.2, 8.7
  given, units = show(standardised(SPY), (rewards, np.ones((4, V))))
  np.testing.assert_array_equal(given.task_reward[:3], 0)
  np.testing.assert_array_equal(units.scale[:3], 0)
  np.testing.assert_allclose(given.task_reward[3], [0, -0.5, 1], atol=1e-6)


def test_a_first_reward_that_is_huge_is_refused():
  rewards = np.array([[1e30, 3e38, -1e9], [0.1, 0.2, 0.4]])
  given, units = show(standardised(SPY), (rewards, np.ones((2, V))))
  np.testing.assert_array_equal(given.task_count, [[0] * V, [1] * V])
  np.testing.assert_allclose(given.task_reward[1], [-0.5, 0, 1], atol=1e-6)
  np.testing.assert_array_equal(units.num_refused, [3, 3])


def test_huge_rewards_are_never_learnt_from_however_many():
  rewards = np.full((200, V), 1e30)
  rewards[::10] = 0.1, 0.2, 0.4
  given, units = show(standardised(SPY), (rewards, np.ones((200, V))))
  assert np.abs(given.task_reward).max() <= 1.001
  assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(units))
  assert units.num_refused[-1] == 180 * V


def test_aux_is_told_in_the_rewards_own_units():
  bandit = standardised(SPY)
  rewards = np.array([[10.0, 12.0, 16.0], [1e20, 10.0, 10.0]])
  _, units = show(bandit, (rewards, np.ones((2, V))))
  state = bandit.init(jax.random.key(0))
  before = bandit.select(jax.random.key(0), state, CONTEXT).aux
  assert before["predicted_reward"] == 2
  assert before["exploration_bonus"] == 3
  units = jax.tree.map(lambda leaf: leaf[-1], units)
  state = state._replace(units=units)
  aux = bandit.select(jax.random.key(0), state, CONTEXT).aux
  # The median is 12 and the largest deviation 4.
  np.testing.assert_allclose(aux["predicted_reward"], 12 + 4 * 2)
  np.testing.assert_allclose(aux["exploration_bonus"], 4 * 3)
  assert aux["refused_rewards"] == 1


def test_a_known_range_becomes_zero_to_one():
  rewards = np.array([[-1.0, 1.0, 3.0], [5.0, 1e30, 0.0]])
  bandit = standardised(SPY, reward_range=(-1.0, 3.0))
  given, _ = show(bandit, (rewards, np.ones((2, V))))
  np.testing.assert_allclose(
    given.task_reward, [[0, 0.5, 1], [1.5, 0, 0.25]], atol=1e-6
  )
  np.testing.assert_array_equal(given.task_count[1], [1, 0, 1])


@pytest.mark.parametrize("bad", [(1.0, 1.0), (0.0, np.inf), (np.nan, 1.0)])
def test_bad_range(bad):
  with pytest.raises(ValueError, match="^reward_range must be [^\n]*$"):
    standardised(SPY, reward_range=bad)


def test_an_unseen_slot_changes_nothing():
  units, taken = learn_units(init_units(), jnp.full(V, 5.0), jnp.zeros(V))
  assert not taken.any()
  for ours, wanted in zip(units, init_units(), strict=True):
    np.testing.assert_array_equal(ours, wanted)
