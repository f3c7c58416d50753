"""The shared round, on a model whose scores are known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from tanbr_jax.bandits import Context, Feedback
from tanbr_jax.bandits.candidates import make_source
from tanbr_jax.bandits.neural.neural_bandit import Rule, neural_bandit
from tanbr_jax.bandits.reward_model import RewardModel
from tanbr_jax.simplex.ascent import Ascent

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


def play(name, rule, rounds, count=1, **options):
  source = make_source(name, num_experts=E, **options)
  bandit = neural_bandit(MODEL, source, rule)

  def step(state, t):
    key = jax.random.key(t)
    decision = bandit.select(key, state, CONTEXT)
    feedback = Feedback(jnp.ones(V), jnp.full(V, count, jnp.int32))
    state = bandit.update(key, state, CONTEXT, decision, feedback)
    return state, decision

  start = bandit.init(jax.random.key(0))
  run = jax.jit(lambda s: jax.lax.scan(step, s, jnp.arange(rounds)))
  return jax.tree.map(np.asarray, run(start))


def test_a_grids_best_point_is_played():
  _, decisions = play("grid", Rule("bonus"), 2, num_candidates=66)
  # 66 = C(10 + 2, 2): multiples of a tenth, BEST among them.
  np.testing.assert_allclose(decisions.merge_weights, [BEST] * 2, atol=1e-6)
  np.testing.assert_allclose(decisions.aux["exploration_bonus"], 1, atol=1e-6)


def test_the_mean_alone_does_not_see_the_bonus():
  _, decisions = play("grid", Rule("mean"), 2, num_candidates=66)
  assert decisions.aux["candidate"].tolist() == [0, 0]


def test_ascent_finds_the_maximum_between_candidates():
  rule = Rule("bonus", Ascent(num_starts=2, num_steps=20))
  state, decisions = play("ascent", rule, 2, num_candidates=4)
  # The last step is a hundredth of .25.
  np.testing.assert_allclose(decisions.merge_weights, [BEST] * 2, atol=5e-3)
  np.testing.assert_allclose(state.source, decisions.merge_weights[-1])


def test_a_tree_grows_around_the_maximum_until_it_is_full():
  state, decisions = play("tree", Rule("bonus"), 60, num_candidates=8)
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
  state, _ = play(name, Rule("bonus"), 3, count=0, num_candidates=4)
  start = make_source(name, num_experts=E, num_candidates=4).init()
  for ours, wanted in zip(
    jax.tree.leaves(state.source), jax.tree.leaves(start), strict=True
  ):
    np.testing.assert_array_equal(ours, wanted)
