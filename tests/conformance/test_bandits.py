"""What every registered bandit must do; a new one enters by itself."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from tanbr_jax.bandits import REGISTRY, Context, Feedback

E, V = 3, 2
OPTIMA = np.array([[0.8, 0.1, 0.1], [0.1, 0.1, 0.8]], np.float32)
LEARNERS = {"lin_ucb", "neural_ucb", "tanbr", "tanbr_paper"}


class Subject:
  """A bandit with its three functions compiled once for the whole module."""

  def __init__(self, name):
    self.name = name
    self.bandit = REGISTRY[name](num_experts=E, num_tasks=V)
    self.init = jax.jit(self.bandit.init)
    self.select = jax.jit(self.bandit.select)
    self.update = jax.jit(self.bandit.update)

  @functools.cached_property
  def state(self):
    """A state that has learnt from eight slots."""
    return play(self, self.init(jax.random.key(0)), range(8))[0]


@pytest.fixture(scope="module", params=sorted(REGISTRY))
def subject(request):
  return Subject(request.param)


def rewards(weights):
  """1 - |x - c_v|^2, at most 1, with noise-free optima in the simplex."""
  return 1 - jnp.sum((weights[None, :] - OPTIMA) ** 2, axis=-1)


def slot(t):
  mix = np.eye(V, dtype=np.float32)[(t // 4) % V]
  return Context(jnp.asarray(mix))


def answer(weights):
  return Feedback(rewards(weights), jnp.ones(V, jnp.int32))


def play(subject, state, rounds, respond=answer):
  decisions = []
  for t in rounds:
    select_key, update_key = jax.random.split(jax.random.key(t))
    decision = subject.select(select_key, state, slot(t))
    feedback = respond(decision.merge_weights)
    state = subject.update(update_key, state, slot(t), decision, feedback)
    decisions.append(decision)
  return state, decisions


def bits(tree):
  return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(tree)]


def test_decisions_lie_on_the_simplex(subject):
  _, decisions = play(subject, subject.init(jax.random.key(1)), range(6))
  for decision in decisions:
    weights = np.asarray(decision.merge_weights, np.float64)
    assert weights.shape == (E,)
    assert np.all(weights >= -1e-6)
    assert abs(weights.sum() - 1) < 1e-5
    assert all(np.all(np.isfinite(leaf)) for leaf in decision.aux.values())


def test_state_keeps_its_shape_and_nothing_compiles_twice(subject):
  state = subject.init(jax.random.key(0))
  after, _ = play(subject, state, range(3))
  chex.assert_trees_all_equal_shapes_and_dtypes(state, after)
  assert subject.select._cache_size() == 1
  assert subject.update._cache_size() == 1


def test_jit_changes_nothing_but_rounding(subject):
  key = jax.random.key(5)
  decision = subject.bandit.select(key, subject.state, slot(0))
  jitted = subject.select(key, subject.state, slot(0))
  # Fused and separate operations differ in the last bits, which the ascent
  # follows: 1e-3 on weights, and the same decision to any user.
  np.testing.assert_allclose(
    decision.merge_weights, jitted.merge_weights, atol=1e-3
  )


def test_scan_and_vmap_agree_with_a_loop(subject):
  looped = []
  for seed in (0, 1):
    _, decisions = play(subject, subject.init(jax.random.key(seed)), range(3))
    looped.append([decision.merge_weights for decision in decisions])

  def episode(bandit, seed_key):
    def step(state, t):
      select_key, update_key = jax.random.split(jax.random.key(t))
      context = Context(jnp.eye(V, dtype=jnp.float32)[(t // 4) % V])
      decision = bandit.select(select_key, state, context)
      feedback = answer(decision.merge_weights)
      state = bandit.update(update_key, state, context, decision, feedback)
      return state, decision.merge_weights

    return jax.lax.scan(step, bandit.init(seed_key), jnp.arange(3))

  bandit = type(subject.bandit)(
    *(f if isinstance(f, Partial) else Partial(f) for f in subject.bandit)
  )
  keys = jnp.stack([jax.random.key(0), jax.random.key(1)])
  _, weights = jax.jit(jax.vmap(episode, (None, 0)))(bandit, keys)
  # As above: rounding only.
  np.testing.assert_allclose(weights, np.asarray(looped), atol=1e-3)


def test_a_task_that_was_not_seen_is_not_learnt_from(subject):
  def masked(value):
    def respond(weights):
      reward = rewards(weights).at[1].set(value)
      return Feedback(reward, jnp.array([3, 0], jnp.int32))

    return respond

  one, _ = play(subject, subject.state, range(4), masked(0.25))
  other, _ = play(subject, subject.state, range(4), masked(-7.0))
  assert bits(one) == bits(other)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_reward_that_is_not_finite_counts_as_not_seen(subject, value):
  def respond(reward, count):
    return lambda weights: Feedback(
      rewards(weights).at[1].set(reward), jnp.array([1, count], jnp.int32)
    )

  bad, _ = play(subject, subject.state, range(3), respond(value, 1))
  unseen, _ = play(subject, subject.state, range(3), respond(0.0, 0))
  assert bits(bad) == bits(unseen)
  assert all(
    np.all(np.isfinite(leaf))
    for leaf in jax.tree.leaves(bad)
    if np.issubdtype(np.asarray(leaf).dtype, np.floating)
  )


def test_saved_and_loaded_state_has_the_same_future(subject, tmp_path):
  leaves, tree = jax.tree.flatten(subject.state)
  np.savez(tmp_path / "state.npz", *[np.asarray(leaf) for leaf in leaves])
  with np.load(tmp_path / "state.npz") as saved:
    loaded = [jnp.asarray(saved[f"arr_{i}"]) for i in range(len(leaves))]
  loaded = jax.tree.unflatten(tree, loaded)
  one = play(subject, subject.state, range(8, 11))
  other = play(subject, loaded, range(8, 11))
  assert bits(one) == bits(other)


def test_learners_learn_the_easy_environment(subject):
  if subject.name not in LEARNERS:
    pytest.skip("does not learn")
  _, decisions = play(subject, subject.init(jax.random.key(2)), range(80))
  regret = [
    float(1 - rewards(d.merge_weights)[(t // 4) % V])
    for t, d in enumerate(decisions)
  ]
  # |1/3 - c|^2 = (.8 - 1/3)^2 + 2 (.1 - 1/3)^2 = .3267 is the average's
  # regret a slot; half of it in the last rounds is far from chance.
  assert np.mean(regret[-24:]) < 0.5 * 0.3267
