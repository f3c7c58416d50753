"""What every registered bandit must do; a new one enters by itself."""

import functools
import inspect
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy

from tanbr_jax.bandits import (
  REGISTRY,
  Bandit,
  Context,
  Feedback,
  Needs,
  delayed,
  discounted,
  sliding_window,
)
from tanbr_jax.online.chunk_store import ChunkStore

E, V = 3, 2
BLOCK = 4
# Rounds of learning; most need far fewer, some need more.
ROUNDS, OTHER_ROUNDS = 300, {"exp3": 3000, "gp_ucb": 120}
MOST_ROUNDS = 3000
OPTIMA = np.array([[0.8, 0.1, 0.1], [0.1, 0.1, 0.8]], np.float32)
CONTROLS = {"fixed", "follow_task_mix", "oracle", "random", "uniform"}
# They cannot tell a slot from the next one: a mix that stays has to do.
CONTEXT_FREE = {
  "exp3",
  "exponentiated_gradient",
  "follow_usage",
  "hct",
  "hoo",
  "online_gradient",
  "online_newton",
  "sto_soo",
  "zooming",
}


def make_wrapped(wrap, name, options, **sizes):
  return wrap(REGISTRY[name](**sizes, **options))


WRAPPERS = {
  "delayed": functools.partial(delayed, delay=3, num_tasks=V),
  "discounted": functools.partial(discounted, factor=0.99),
  "sliding_window": functools.partial(sliding_window, window=60),
}
CONSTRUCTORS = dict(REGISTRY) | {
  f"{wrapper}_{name}": functools.partial(make_wrapped, wrap, name, options)
  for wrapper, wrap in WRAPPERS.items()
  # UCB1's own exploration never ends where what was learnt is forgotten.
  for name, options in (("ucb1", {"exploration": 0.1}), ("thompson", {}))
}
# Made of parts that a learner outside of this list has too: they play among the
# slow tests.
MADE_ALIKE = {
  "cats",
  "delayed_ucb1",
  "discounted_thompson",
  "epsilon_greedy",
  "exp3",
  "exponentiated_gradient",
  "gp_ucb",
  "hoo",
  "lin_ts",
  "neural_epsilon_greedy",
  "neural_linear",
  "neural_ts",
  "neural_ucb_practical",
  "neural_ucb_theory",
  "online_gradient",
  "online_newton",
  "sliding_window_thompson",
  "sto_soo",
  "tanbr_paper",
}


def quick_and_slow(names):
  """Parameters of a test, some of them for the slow tests alone."""
  return [
    pytest.param(name, marks=[pytest.mark.slow] * (name in MADE_ALIKE))
    for name in sorted(names)
  ]


of_each_make = pytest.mark.parametrize(
  "subject", quick_and_slow(CONSTRUCTORS), indirect=True
)


class Slots(NamedTuple):
  """What the environment does, [..., T, V] each.

  Attributes:
    mix: what the bandit sees.
    count: requests.
    forced: rewards that replace the environment's where `is_forced`.
    is_forced: where.
    scale, offset: a and b of rewards a r + b, [..., T].
  """

  mix: np.ndarray
  count: np.ndarray
  forced: np.ndarray
  is_forced: np.ndarray
  scale: np.ndarray
  offset: np.ndarray


def make_slots(constant=False, scale=1.0, offset=0.0):
  """Two mixes in turn, four slots each, or the first one for ever."""
  rounds = np.arange(MOST_ROUNDS)
  tasks = np.zeros_like(rounds) if constant else rounds // BLOCK % V
  shape = (MOST_ROUNDS, V)
  return Slots(
    np.eye(V, dtype=np.float32)[tasks],
    np.ones(shape, np.int32),
    np.zeros(shape, np.float32),
    np.zeros(shape, bool),
    np.full(MOST_ROUNDS, scale, np.float32),
    np.full(MOST_ROUNDS, offset, np.float32),
  )


def stack(*trees):
  # NumPy's, as one of jax is a program for each shape.
  return jax.tree.map(lambda *leaves: np.stack(leaves), *trees)


def take(tree, lane):
  return jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf)[lane]), tree)


def make_options(constructor):
  """A budget for every bandit that takes one."""
  takes = "budget" in inspect.signature(constructor).parameters
  return {"budget": 2} if takes else {}


def rewards(weights):
  """1 - |x - c_v|^2, at most 1, with noise-free optima in the simplex."""
  optima = optima_of(weights.shape[0])
  return 1 - jnp.sum((weights[None, :] - optima) ** 2, axis=-1)


def optima_of(num_experts):
  """[V, E]; weight on more experts than three is lost."""
  return np.pad(OPTIMA, ((0, 0), (0, num_experts - E)))


def tell(bandit, weights, slot):
  """Feedback of a slot, with the signals that the bandit needs.

  The gradient is that of the mix's reward without its mean, and a router uses
  the experts as is best for the mix. Both are absent where a task is unseen.
  """
  is_forced = jnp.any(slot.is_forced)
  wrong = jnp.sum(jnp.where(slot.is_forced, slot.forced, 0.0))
  reward = slot.scale * rewards(weights) + slot.offset
  reward = jnp.where(slot.is_forced, slot.forced, reward)
  feedback = Feedback(reward, slot.count)
  optimal = slot.mix @ optima_of(weights.shape[0])
  if "gradient" in bandit.needs:
    gradient = 2 * slot.scale * (optimal - weights)
    feedback = feedback._replace(
      gradient=jnp.where(is_forced, wrong, gradient - jnp.mean(gradient)),
      gradient_count=jnp.min(slot.count),
    )
  if "usage" in bandit.needs:
    usage = jnp.where(is_forced, wrong, optimal)
    feedback = feedback._replace(usage=usage)
  return feedback


def keys_of(t):
  return jax.random.split(jax.random.key(t))


def play_round(bandit, state, t, slot):
  """One slot: the state after it, and the decision."""
  select_key, update_key = keys_of(t)
  context = Context(slot.mix)
  decision = bandit.select(select_key, state, context)
  feedback = tell(bandit, decision.merge_weights, slot)
  state = bandit.update(update_key, state, context, decision, feedback)
  return state, decision


def play_lane(bandit, state, blocks, slots):
  """Plays blocks [2] of four rounds: the state, weights [T, E], if finite."""

  def step(state, t):
    slot = jax.tree.map(lambda leaf: leaf[t], slots)
    state, decision = play_round(bandit, state, t, slot)
    finite = [jnp.all(jnp.isfinite(leaf)) for leaf in decision.aux.values()]
    return state, (decision.merge_weights, jnp.all(jnp.array([True, *finite])))

  # Scans inside a loop whose length is an argument: short plays and long
  # ones are one program.
  def block(i, carry):
    state, weights, finite = carry
    rounds = i * BLOCK + jnp.arange(BLOCK, dtype=jnp.int32)
    state, (played, fine) = jax.lax.scan(step, state, rounds)
    weights = jax.lax.dynamic_update_slice_in_dim(
      weights, played, i * BLOCK, axis=0
    )
    return state, weights, finite & jnp.all(fine)

  weights = jnp.zeros((MOST_ROUNDS, E), jnp.float32)
  start = (state, weights, jnp.asarray(True))
  return jax.lax.fori_loop(blocks[0], blocks[1], block, start)


class Subject:
  """A bandit with two lanes of it compiled once for the whole module."""

  def __init__(self, name):
    self.name = name
    self.constructor = CONSTRUCTORS[name]
    options = make_options(self.constructor)
    self.budget = options.get("budget", E)
    self.bandit = self.constructor(num_experts=E, num_tasks=V, **options)
    init = jax.vmap(lambda bandit, seed: bandit.init(jax.random.key(seed)))
    self._init = jax.jit(lambda *args: init(*args))
    play = jax.vmap(play_lane, (0, 0, None, 0))
    self._play = jax.jit(lambda *args: play(*args))

  def play(self, rounds, *slots, bandits=None, states=None, seeds=(0, 1)):
    """Two lanes: states, weights [2, T, E] of these rounds, whether finite."""
    bandits = stack(*(bandits or (self.bandit, self.bandit)))
    if states is None:
      states = self._init(bandits, np.asarray(seeds, np.int32))
    states, weights, finite = self._play(
      bandits,
      states,
      np.asarray([rounds.start // BLOCK, rounds.stop // BLOCK], np.int32),
      jax.tree.map(lambda *leaves: np.stack(leaves), *slots),
    )
    weights = np.asarray(weights[:, rounds.start : rounds.stop])
    return states, weights, np.asarray(finite)

  @functools.cached_property
  def after_eight(self):
    """The states after eight rounds, of two mixes in turn and of one mix."""
    lanes = (make_slots(), make_slots(constant=True))
    return self.play(range(8), *lanes)[0]

  @functools.cached_property
  def learnt(self):
    """The same lanes for as long as they take to learn."""
    rounds = range(OTHER_ROUNDS.get(self.name, ROUNDS))
    return self.play(rounds, make_slots(), make_slots(constant=True))


@pytest.fixture(scope="module", params=quick_and_slow(CONSTRUCTORS))
def subject(request):
  return Subject(request.param)


def bits(tree):
  return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(tree)]


def floats(tree):
  return [
    leaf
    for leaf in map(np.asarray, jax.tree.leaves(tree))
    if np.issubdtype(leaf.dtype, np.floating)
  ]


def test_decisions_lie_on_the_simplex_and_in_the_budget(subject):
  _, weights, finite = subject.learnt
  assert weights.shape[0::2] == (2, E) and weights.dtype == np.float32
  assert np.all(weights >= -1e-6)
  assert np.abs(weights.astype(float).sum(-1) - 1).max() < 1e-5
  assert np.count_nonzero(weights, axis=-1).max() <= subject.budget
  assert finite.all()


def test_state_keeps_its_shape_and_types(subject):
  """What changes a type, a weak one too, compiles the next round again."""
  state = jax.eval_shape(subject.bandit.init, jax.random.key(0))
  slot = jax.tree.map(lambda leaf: leaf[0], make_slots())
  after, _ = jax.eval_shape(
    functools.partial(play_round, subject.bandit), state, np.int32(0), slot
  )
  assert jax.tree.structure(after) == jax.tree.structure(state)
  for before, now in zip(*map(jax.tree.leaves, (state, after)), strict=True):
    assert (now.shape, now.dtype) == (before.shape, before.dtype)
    # `rounds.init` makes the first state's types strong.
    assert not now.weak_type


@of_each_make
def test_select_without_jit_decides_as_the_scan_and_keeps_the_state(subject):
  state = take(subject.after_eight, 0)
  before = bits(state)
  context = Context(jnp.asarray(make_slots().mix[8]))
  decision = subject.bandit.select(keys_of(8)[0], state, context)
  assert bits(state) == before
  # Fused and separate operations differ in the last bits, which the ascent
  # follows (1e-3 on weights), and which decide between weights that the easy
  # environment pays alike.
  _, weights, _ = subject.learnt
  ours, scans = np.asarray(decision.merge_weights), weights[0, 8]
  pay = [float(rewards(jnp.asarray(x))[0]) for x in (ours, scans)]
  assert np.abs(ours - scans).max() < 1e-3 or abs(pay[0] - pay[1]) < 1e-3


def test_stacked_hyper_parameters_are_those_of_each(subject):
  """A sweep by vmap, which a new value does not compile again."""
  other = jax.tree.map(
    lambda leaf: (
      0.9 * leaf
      if leaf.ndim == 0 and jnp.issubdtype(leaf.dtype, jnp.floating)
      else leaf
    ),
    subject.bandit,
  )
  slots = (make_slots(), make_slots())
  first, second = subject.bandit, other
  mixed = subject.play(range(8), *slots, bandits=(first, second))
  for lane, bandit in enumerate((first, second)):
    alone = subject.play(range(8), *slots, bandits=(bandit, bandit))
    assert bits(take(mixed, lane)) == bits(take(alone, lane))
  assert subject._play._cache_size() == 1


def test_numbers_are_arrays_and_not_part_of_the_program(subject):
  parameters = inspect.signature(subject.constructor).parameters
  numbers = {
    name: 0.9 * parameter.default
    for name, parameter in parameters.items()
    if isinstance(parameter.default, float)
  }
  one = subject.constructor(num_experts=E, num_tasks=V)
  other = subject.constructor(num_experts=E, num_tasks=V, **numbers)
  assert jax.tree.structure(one) == jax.tree.structure(other)
  chex.assert_trees_all_equal_shapes_and_dtypes(one, other)
  assert (bits(one) != bits(other)) == bool(numbers)


def test_what_was_not_seen_is_not_learnt_from(subject):
  """Whatever a reward is where nobody asked, or where it is not finite."""
  unseen, bad = make_slots(), make_slots()
  # In turn: task 1 unseen, both unseen, all seen; from the second slot on.
  unseen.count[1::3, 1], unseen.count[2::3] = 0, 0
  unseen.is_forced[:] = unseen.count == 0
  bad.forced[1::3, 1] = np.nan
  bad.forced[2::3, 1], bad.forced[2::3, 0] = np.inf, -np.inf
  bad.is_forced[:] = bad.forced != 0
  masked = bad._replace(
    count=np.where(bad.is_forced, 0, bad.count).astype(np.int32),
    forced=np.zeros_like(bad.forced),
  )
  worse = unseen._replace(forced=np.full_like(unseen.forced, -7.0))
  one = subject.play(range(16), unseen, bad)
  other = subject.play(range(16), worse, masked)
  assert bits(one) == bits(other)
  # Infinite is what a tree's bound is before the first visit.
  assert not any(np.isnan(leaf).any() for leaf in floats(one))


def test_saved_and_loaded_state_has_the_same_future(subject, tmp_path):
  states, lanes = subject.after_eight, (make_slots(), make_slots())
  store = ChunkStore(tmp_path, "run", run_id="0", num_chunks=1)
  zeros = np.zeros((1, 1))
  store.save(0, states, toy.make_trace(zeros, zeros, zeros), {})
  loaded = store.load(jax.eval_shape(lambda: states)).carry
  one = subject.play(range(8, 12), *lanes, states=states)
  other = subject.play(range(8, 12), *lanes, states=loaded)
  assert bits(one) == bits(other)


def test_learners_learn_the_easy_environment(subject):
  if subject.name in CONTROLS:
    pytest.skip("does not learn")
  _, weights, _ = subject.learnt
  lanes = (make_slots(), make_slots(constant=True))
  num_rounds = weights.shape[1]
  optimal = np.stack([slots.mix[:num_rounds] @ OPTIMA for slots in lanes])
  regret = np.sum((weights - optimal) ** 2, axis=-1)[:, -num_rounds // 4 :]
  in_turn, constant = regret.mean(axis=1)
  # |1/3 - c|^2 = (.8 - 1/3)^2 + 2 (.1 - 1/3)^2 = .3267 is the average's
  # regret a slot; half of it in the last rounds is far from chance.
  assert constant < 0.5 * 0.3267
  if subject.name not in CONTEXT_FREE:
    assert in_turn < 0.5 * 0.3267


@pytest.mark.parametrize("name", sorted(CONSTRUCTORS))
@pytest.mark.parametrize("bad", [{"num_experts": 1}, {"num_tasks": 0}])
def test_sizes_are_checked(name, bad):
  sizes = {"num_experts": E, "num_tasks": V} | bad
  (field, value), *_ = bad.items()
  with pytest.raises(ValueError, match=f"{field}={value}") as error:
    CONSTRUCTORS[name](**sizes)
  assert "\n" not in str(error.value)


def test_lists_name_registered_bandits():
  assert set(REGISTRY) >= CONTROLS


def test_a_bandit_is_a_pytree_of_partials(subject):
  assert isinstance(subject.bandit, Bandit)
  *functions, needs = subject.bandit
  assert all(isinstance(part, jax.tree_util.Partial) for part in functions)
  assert isinstance(needs, Needs)


def types(tree):
  return jax.tree.map(lambda leaf: leaf.dtype, tree)


# The machinery of all learners; each costs a second compilation.
PLAYED_UNDER_X64 = {"hct", "meta_gradient", "multitask_ts", "neural_ts"}


@pytest.mark.parametrize(
  "subject",
  [
    pytest.param(
      name, marks=[] if name in PLAYED_UNDER_X64 else pytest.mark.slow
    )
    for name in sorted(CONSTRUCTORS)
  ],
  indirect=True,
)
def test_decisions_under_x64_are_those_in_32_bits(subject):
  lanes = (make_slots(), make_slots(constant=True))
  expected = types(subject.after_eight)
  with jax.enable_x64(True):
    states, weights, _ = Subject(subject.name).play(range(8), *lanes)
  assert types(states) == expected and weights.dtype == np.float32
  # One program, but for Adam's powers of its rates, which go by way of 64 bits,
  # and for how it is fused: last bits, which the ascent follows (1e-3 on
  # weights) and which decide between weights that are paid alike.
  _, in_32_bits, _ = subject.learnt
  ours, scans = weights, in_32_bits[:, :8]
  optimal = np.stack([slots.mix[:8] @ OPTIMA for slots in lanes])
  pay = [np.sum((x - optimal) ** 2, axis=-1) for x in (ours, scans)]
  apart = np.abs(ours - scans).max(-1)
  assert np.all((apart < 1e-3) | (np.abs(pay[0] - pay[1]) < 1e-3))


@pytest.mark.parametrize("name", sorted(CONSTRUCTORS))
def test_types_under_x64_are_those_in_32_bits(name):
  bandit = CONSTRUCTORS[name](num_experts=E, num_tasks=V)
  slot = jax.tree.map(lambda leaf: leaf[0], make_slots())

  def play(seed):
    start = bandit.init(jax.random.key(seed))
    return start, play_round(bandit, start, seed, slot)

  in_32_bits = types(jax.eval_shape(play, np.int32(0)))
  with jax.enable_x64(True):
    bandit = CONSTRUCTORS[name](num_experts=E, num_tasks=V)
    assert types(jax.eval_shape(play, np.int32(0))) == in_32_bits


@pytest.mark.parametrize("name", quick_and_slow(set(REGISTRY) - CONTROLS))
def test_sixty_four_experts(name):
  options = make_options(REGISTRY[name])
  bandit = REGISTRY[name](num_experts=64, num_tasks=V, **options)
  slots = jax.tree.map(lambda leaf: jnp.asarray(leaf[:4]), make_slots())

  @jax.jit
  def play(bandit):
    def step(state, slot):
      t, slot = slot
      state, decision = play_round(bandit, state, t, slot)
      return state, decision.merge_weights

    start = bandit.init(jax.random.key(0))
    return jax.lax.scan(step, start, (jnp.arange(4, dtype=jnp.int32), slots))

  state, weights = play(bandit)
  # Infinite is what a tree's bound is before the first visit.
  assert not any(np.isnan(leaf).any() for leaf in floats(state))
  weights = np.asarray(weights, float)
  assert weights.shape == (4, 64) and weights.min() >= -1e-6
  # A float32 sum of 64 rounded entries is right to 64 * 2^-24 = 4e-6.
  assert np.abs(weights.sum(-1) - 1).max() < 1e-5


@pytest.mark.parametrize("name", sorted(REGISTRY))
def test_a_default_state_is_small_whatever_the_experts(name):
  bandit = REGISTRY[name](num_experts=192, num_tasks=8)
  state = jax.tree.leaves(jax.eval_shape(bandit.init, jax.random.key(0)))
  assert sum(leaf.size * leaf.dtype.itemsize for leaf in state) < 200e6


def regrets(weights):
  """Regret of weights [2, T, E] where two mixes come in turn, [2, T]."""
  return np.sum(
    (weights - make_slots().mix[: weights.shape[1]] @ OPTIMA) ** 2, axis=-1
  )


def test_rewards_of_any_offset_and_scale_are_the_same_problem(subject):
  """r and a r + b, in corners of a in [.01, 100], b in [-100 a, 100 a]."""
  corners = [(0.01, 1.0), (100.0, -1e4)]
  lanes = [make_slots(scale=a, offset=b) for a, b in corners]
  _, learnt, _ = subject.learnt
  _, weights, finite = subject.play(
    range(learnt.shape[1]), *lanes, seeds=(0, 0)
  )
  assert finite.all()
  # At |b| = 100 a a reward is known to 5e-6 a, which a fitted and ascended
  # score amplifies from round to round; the first rounds come again.
  np.testing.assert_allclose(
    weights[:, :5], [learnt[0, :5]] * 2, rtol=0, atol=2e-3
  )
  ours, plain = regrets(weights).sum(axis=1), regrets(learnt)[0].sum()
  # A tenth, or a twentieth of the average's regret: this is one seed, whose
  # path forks where rounding decides between points that are paid alike.
  chance = 0.3267 * learnt.shape[1]
  np.testing.assert_allclose(ours, plain, rtol=0.1, atol=0.05 * chance)


def test_one_huge_reward_is_refused_and_learning_goes_on(subject):
  if subject.name in CONTROLS or subject.bandit.needs:
    pytest.skip("does not learn from rewards alone")
  # The first reward of all, and one of each sign later.
  first, later = make_slots(constant=True), make_slots(constant=True)
  first.forced[0], first.forced[1, 0] = 1e30, -3e38
  later.forced[9, 1], later.forced[10, 0], later.forced[21] = 3e38, -1e30, 1e30
  for lane in (first, later):
    lane.is_forced[:] = lane.forced != 0
  _, learnt, _ = subject.learnt
  num_rounds = learnt.shape[1]
  states, weights, finite = subject.play(range(num_rounds), first, later)
  assert finite.all()
  assert all(np.isfinite(leaf).all() for leaf in floats(states))
  regret = np.sum((weights - OPTIMA[0]) ** 2, axis=-1)[:, -num_rounds // 4 :]
  assert np.all(regret.mean(axis=1) < 0.5 * 0.3267)
