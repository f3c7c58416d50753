"""Statistics of fixed arms against a slow float64 loop."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial
from unwrapped import unwrapped

from tanbr_jax.bandits import Context, Decision, Feedback, reward_model
from tanbr_jax.bandits.arms.fixed_arms import (
  fixed_arms,
  make_arms,
  neutral_means,
)

E, V, T = 3, 2, 40


def first_arm(key, statistics, mix):
  del key, statistics, mix
  return jnp.int32(0), {}


@pytest.fixture(scope="module")
def history():
  rng = np.random.default_rng(0)
  arms = rng.integers(0, 3, T).astype(np.int32)  # the last arm is never played
  mixes = rng.dirichlet(np.ones(V), T).astype(np.float32)
  rewards = rng.normal(2, 1, (T, V)).astype(np.float32)
  counts = rng.integers(0, 3, (T, V)).astype(np.int32)
  return arms, mixes, rewards, counts


def learn(history, context):
  bandit = unwrapped(
    fixed_arms(Partial(first_arm), num_experts=E, num_tasks=V, context=context)
  )
  key = jax.random.key(0)

  def step(state, row):
    arm, mix, reward, count = row
    decision = Decision(jnp.zeros(E), {"arm": arm})
    feedback = Feedback(reward, count)
    return bandit.update(key, state, Context(mix), decision, feedback), None

  rows = tuple(map(jnp.asarray, history))
  return jax.jit(lambda s, r: jax.lax.scan(step, s, r)[0])(
    bandit.init(key), rows
  )


def slots(history, context):
  """Yields arm, rewards [W] and counts [W] of every slot, in float64."""
  for arm, mix, reward, count in zip(*history, strict=True):
    if context == "per_task":
      yield arm, reward.astype(float), count
      continue
    shares = np.where(count > 0, mix.astype(float), 0)
    seen = shares.sum() > 0
    value = shares @ reward / shares.sum() if seen else 0.0
    yield arm, np.array([value]), np.array([int(seen)])


@pytest.mark.parametrize("context", ["per_task", "slot"])
def test_statistics_are_those_of_a_batch(history, context):
  state = learn(history, context)
  rows = list(slots(history, context))
  width = rows[0][1].size
  squares, freedom = 0.0, 0
  means = np.full((E + 1, width), np.nan)
  for arm in range(E + 1):
    for column in range(width):
      seen = [
        (r[column], c[column]) for a, r, c in rows if a == arm and c[column]
      ]
      count = sum(c for _, c in seen)
      assert float(state.count[arm, column]) == count
      if seen:
        values, weights = np.array(seen).T
        mean = np.average(values, weights=weights)
        means[arm, column] = mean
        squares += (weights * (values - mean) ** 2).sum()
        freedom += len(seen) - 1
  visits = [sum(a == arm and c.any() for a, _, c in rows) for arm in range(4)]
  np.testing.assert_array_equal(state.visits, visits)
  known = ~np.isnan(means)
  # Forty float32 updates.
  np.testing.assert_allclose(
    np.asarray(state.mean)[known], means[known], rtol=1e-5
  )
  np.testing.assert_allclose(state.squares, squares, rtol=1e-5)
  assert float(state.freedom) == freedom
  everything = [r[c > 0] for _, r, c in rows]
  everything = np.concatenate(everything)
  np.testing.assert_allclose(state.bounds.lowest, everything.min(), rtol=1e-6)
  np.testing.assert_allclose(state.bounds.highest, everything.max(), rtol=1e-6)
  np.testing.assert_allclose(state.scale.mean, everything.mean(), rtol=1e-5)
  np.testing.assert_allclose(
    reward_model.spread(state.scale), everything.std(), rtol=1e-5
  )
  pooled = [
    np.average([r[w] for _, r, _ in rows], weights=[c[w] for _, _, c in rows])
    for w in range(width)
  ]
  np.testing.assert_allclose(neutral_means(state)[3], pooled, rtol=1e-5)


def test_arms_are_vertices_uniform_and_what_the_user_gives():
  arms = make_arms(2, [[0.3, 0.7]])
  wanted = [[1, 0], [0, 1], [0.5, 0.5], [0.3, 0.7]]
  np.testing.assert_allclose(arms, wanted, rtol=1e-6)


@pytest.mark.parametrize(
  "options, words",
  [
    ({"arms": [[0.5, 0.6]]}, "sum to 1"),
    ({"arms": [[0.2, 0.3, 0.5]]}, "num_experts=2"),
    ({"arms": [0.5, 0.5]}, "arms.shape"),
    ({"context": "task"}, "context='task'"),
    ({"num_experts": 1}, "num_experts=1"),
    ({"bounds": (1.0, 0.0)}, "reward_range"),
  ],
)
def test_bad_input(options, words):
  options = {"num_experts": 2, "num_tasks": 2, **options}
  with pytest.raises(ValueError, match=words):
    fixed_arms(Partial(first_arm), **options)
