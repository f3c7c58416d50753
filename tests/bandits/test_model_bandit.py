"""The shared round, on a model whose scores are known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial
from unwrapped import unwrapped

from tanbr_jax.bandits import Context, Feedback
from tanbr_jax.bandits.model_bandit import model_bandit, named_candidates
from tanbr_jax.bandits.reward_model import RewardModel

E, V = 3, 2
BEST = np.array([0.5, 0.3, 0.2], np.float32)
CONTEXT = Context(jnp.asarray([0.5, 0.5], jnp.float32))


def _estimate(key, state, task_mix):
  """Mean 0 and a bonus that is largest, 1, at BEST."""
  return lambda x: (0.0 * x[0], 1 - jnp.sum((x - BEST) ** 2))


def _update(key, state, task_mix, weights, feedback):
  return state + 1


MODEL = RewardModel(
  Partial(lambda key: jnp.int32(0)), Partial(_estimate), Partial(_update)
)


def play(name, rounds, count=1, size=4):
  bandit = unwrapped(model_bandit(MODEL, *named_candidates(name, E, size)))

  def step(state, t):
    key = jax.random.key(t)
    decision = bandit.select(key, state, CONTEXT)
    feedback = Feedback(jnp.ones(V), jnp.full(V, count, jnp.int32))
    state = bandit.update(key, state, CONTEXT, decision, feedback)
    return state, decision

  start = bandit.init(jax.random.key(0))
  run = jax.jit(lambda s: jax.lax.scan(step, s, jnp.arange(rounds)))
  return jax.tree.map(np.asarray, run(start))


def test_the_best_of_the_draws_is_played():
  _, decisions = play("dirichlet", 3, size=500)
  # 500 draws have a neighbour of BEST within a few hundredths.
  assert np.all(decisions.aux["exploration_bonus"] > 0.99)
  np.testing.assert_allclose(decisions.merge_weights, [BEST] * 3, atol=0.1)
  assert np.all(decisions.aux["predicted_reward"] == 0)


def test_ascent_finds_the_maximum_between_candidates():
  state, decisions = play("ascent", 2)
  # The last step is a hundredth of .25.
  np.testing.assert_allclose(decisions.merge_weights, [BEST] * 2, atol=5e-3)
  np.testing.assert_allclose(state.source, decisions.merge_weights[-1])


def test_a_tree_grows_around_the_maximum_until_it_is_full():
  state, decisions = play("tree", 60, size=8)
  leaves = decisions.aux["num_leaves"]
  assert leaves[0] == 1 and leaves[-1] == 8
  assert np.all(np.diff(leaves) >= 0)
  assert decisions.aux["tree_full"][-1]
  distance = np.sum((decisions.merge_weights - BEST) ** 2, axis=1)
  assert distance[-1] < 0.5 * distance[0]
  assert np.sum(state.source.visits) == 60
  assert state.model == 60


@pytest.mark.parametrize("name", ["tree", "ascent"])
def test_a_slot_that_shows_nothing_leaves_the_source(name):
  state, _ = play(name, 3, count=0)
  start = named_candidates(name, E, 4)[0].init()
  for ours, wanted in zip(
    jax.tree.leaves(state.source), jax.tree.leaves(start), strict=True
  ):
    np.testing.assert_array_equal(ours, wanted)


def test_no_key_is_used_twice():
  used = []

  def spy(function):
    def spied(key, *args):
      used.append(key)
      return function(key, *args)

    return spied

  source, pick = named_candidates("dirichlet", E, 4)
  bandit = unwrapped(
    model_bandit(
      MODEL._replace(estimate=spy(MODEL.estimate)),
      source._replace(propose=spy(source.propose)),
      spy(pick),
    )
  )
  key = jax.random.key(3)
  bandit.select(key, bandit.init(key), CONTEXT)
  bits = [tuple(jax.random.key_data(one).tolist()) for one in used]
  assert len(set(bits)) == 3
  # None was split by whoever used it, to make another of them.
  for parent in used:
    children = jax.random.key_data(jax.random.split(parent, 5)).tolist()
    assert not set(map(tuple, children)) & set(bits)
