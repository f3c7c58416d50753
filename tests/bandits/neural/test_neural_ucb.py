"""NeuralUCB's three forms against references and formulas."""

import jax
import jax.numpy as jnp
import neural_ucb_reference
import numpy as np
import pytest
from unwrapped import unwrapped

from tanbr_jax.bandits import (
  Context,
  Feedback,
  neural_ucb,
  neural_ucb_practical,
  neural_ucb_theory,
)
from tanbr_jax.bandits.candidates import make_source
from tanbr_jax.bandits.neural.neural_training import random_order

E, V, ROUNDS, CAPACITY = 3, 2, 40, 64
LAMBDA, NU = 0.01, 0.25
OPTIONS = dict(
  num_experts=E,
  num_tasks=V,
  hidden=(8,),
  num_candidates=6,
  regularisation=LAMBDA,
  exploration=NU**0.5,
  num_steps=60,
  stop_loss=2e-2,
  dense_rounds=25,
  sparse_every=4,
  replay_capacity=CAPACITY,
  reward_range=(0.0, 1.0),
)


def make_slots():
  """Mixes, rewards' noise and counts of a run in which tasks go missing."""
  rng = np.random.default_rng(0)
  mixes = rng.dirichlet(np.ones(V), ROUNDS).astype(np.float32)
  noises = 0.05 * rng.standard_normal((ROUNDS, V)).astype(np.float32)
  counts = rng.integers(0, 3, (ROUNDS, V)).astype(np.int32)
  counts[5] = 0
  return mixes, noises, counts


def truth(x):
  return jnp.stack([1 - jnp.sum((x - 0.5) ** 2), x[0] + 0.5 * x[2]])


def learner_of(bandit):
  return bandit.select.args[0].init.args[0].learner


@pytest.fixture(scope="module")
def recorded():
  """Our run: start, candidates, orders, decisions, states."""
  bandit = unwrapped(neural_ucb_practical(**OPTIONS))
  source = make_source("dirichlet", E, 6)

  def step(state, row):
    t, mix, noise, count = row
    select_key, update_key = jax.random.split(jax.random.key(t))
    context = Context(mix)
    decision = bandit.select(select_key, state, context)
    candidates, _ = source.propose(jax.random.split(select_key, 5)[1], ())
    reward = truth(decision.merge_weights) + noise
    state = bandit.update(
      update_key, state, context, decision, Feedback(reward, count)
    )
    order = random_order(
      update_key, state.model.learner.replay.num_slots, CAPACITY
    )
    params, diagonal = state.model.learner.params, state.model.confidence
    record = candidates, order, decision, reward, params, diagonal
    return state, record

  mixes, noises, counts = make_slots()
  rows = (jnp.arange(ROUNDS, dtype=jnp.int32), mixes, noises, counts)
  start = bandit.init(jax.random.key(9))
  _, record = jax.jit(lambda s: jax.lax.scan(step, s, rows))(start)
  return start.model.learner.params, jax.tree.map(np.asarray, record)


def test_practical_is_the_public_codes_algorithm_step_by_step(recorded):
  start, (candidates, orders, decisions, rewards, params, z) = recorded
  mixes, _, counts = make_slots()
  slow = neural_ucb_reference.Reference(
    neural_ucb_reference.from_flax(start),
    lam=LAMBDA,
    nu=NU,
    rate=0.01,
    max_steps=60,
    stop=2e-2,
    dense=25,
    every=4,
  )
  for t in range(ROUNDS):
    best, bonus, gradient = slow.select(candidates[t], mixes[t])
    assert best == decisions.aux["candidate"][t]
    # Up to 1,600 float32 steps lie between the two.
    np.testing.assert_allclose(
      decisions.aux["exploration_bonus"][t], bonus, rtol=1e-3
    )
    weights = candidates[t][best].astype(np.float64)
    learnt = len(slow.data) + bool(np.any(counts[t] > 0))
    slow.update(
      weights, gradient, rewards[t], counts[t] > 0, orders[t][:learnt]
    )
    ours = neural_ucb_reference.from_flax(
      jax.tree.map(lambda leaf, t=t: leaf[t], params)
    )
    for name, values in slow.params.items():
      np.testing.assert_allclose(ours[name], values, atol=2e-4)
  taken = np.array(slow.steps_taken)
  # The run went through every branch: cut off, stopped early, not trained.
  assert {0, 60} < set(taken) and np.any((taken > 0) & (taken < 60))
  # Ours is Z / m.
  total = 8 * np.sum(np.asarray(z.high[-1], np.float64))
  wanted = sum(np.sum(d) for d in slow.diagonal.values())
  np.testing.assert_allclose(total, wanted, rtol=1e-4)


@pytest.fixture(scope="module")
def theory():
  """Twelve rounds of the theory: states, weights, mixes, gradients."""
  bandit = unwrapped(
    neural_ucb_theory(
      num_experts=E,
      num_tasks=V,
      hidden=(8,),
      num_candidates=4,
      reward_range=(0.0, 1.0),
    )
  )
  learner = learner_of(bandit)

  def psi_f(params, x, mix):
    return jnp.dot(mix, learner.network.apply(params, x))

  def step(state, t):
    select_key, update_key = jax.random.split(jax.random.key(t))
    mix = jnp.stack([t, 11 - t]).astype(jnp.float32) / 11
    decision = bandit.select(select_key, state, Context(mix))
    x = decision.merge_weights
    gradient = jax.grad(psi_f)(state.model.learner.params, x, mix)
    gradient = jax.flatten_util.ravel_pytree(gradient)[0]
    feedback = Feedback(truth(x), jnp.ones(V, jnp.int32))
    new = bandit.update(update_key, state, Context(mix), decision, feedback)
    bonus = decision.aux["exploration_bonus"]
    return new, (state.model.log_det, gradient, bonus)

  start = bandit.init(jax.random.key(0))
  run = jax.jit(lambda s: jax.lax.scan(step, s, jnp.arange(12)))
  state, record = run(start)
  return learner, start, state, jax.tree.map(np.asarray, record)


def test_theory_starts_at_zero_with_gradients(theory):
  learner, start, _, _ = theory
  x = jnp.asarray([0.2, 0.3, 0.5], jnp.float32)
  params = start.model.learner.params
  # sqrt(m) times a sum of cancelling halves: rounding only.
  np.testing.assert_allclose(learner.network.apply(params, x), 0, atol=1e-6)
  jacobian = jax.jacobian(learner.network.apply)(params, x)
  assert all(
    np.any(np.asarray(leaf) != 0) for leaf in jax.tree.leaves(jacobian)
  )


def test_theorys_bonus_is_gamma_t_times_the_width(theory):
  _, _, state, (log_dets, gradients, bonuses) = theory
  lam, m = 0.1, 8
  matrix = lam * np.eye(gradients.shape[1])
  for log_det, gradient, bonus in zip(
    log_dets, gradients.astype(np.float64), bonuses, strict=True
  ):
    wanted = np.linalg.slogdet(matrix / lam)[1]
    np.testing.assert_allclose(log_det, wanted, rtol=1e-4, atol=1e-5)
    # nu = .05, S = 1, delta = .1, and a tenth of it all.
    gamma = 0.05 * np.sqrt(wanted - 2 * np.log(0.1)) + np.sqrt(lam)
    width = np.sqrt(gradient @ np.linalg.solve(matrix, gradient) / m)
    np.testing.assert_allclose(bonus, 0.1 * gamma * width, rtol=1e-3)
    matrix += np.outer(gradient, gradient) / m
  wanted = np.linalg.slogdet(matrix / lam)[1]
  np.testing.assert_allclose(state.model.log_det, wanted, rtol=1e-4)


@pytest.mark.parametrize(
  "options, words",
  [
    ({"candidates": "arms"}, "candidates='arms'"),
    ({"num_candidates": 0}, "num_candidates=0"),
    ({"regularisation": 0.0}, "regularisation=0.0"),
    ({"exploration": -1.0}, "exploration=-1.0"),
    ({"learning_rate": float("nan")}, "learning_rate=nan"),
    ({"hidden": ()}, r"hidden=\(\)"),
    ({"num_steps": 0}, "num_steps=0"),
    ({"num_tasks": 0}, "num_tasks=0"),
  ],
)
def test_bad_input(options, words):
  with pytest.raises(ValueError, match=words):
    neural_ucb(**{"num_experts": E, "num_tasks": V, **options})


@pytest.mark.parametrize(
  "options, words",
  [
    ({"failure": 1.0}, "failure=1.0"),
    ({"noise": -1.0}, "noise=-1.0"),
    ({"hidden": (5,)}, r"hidden=\(5,\)"),
    ({"hidden": ()}, r"hidden=\(\)"),
  ],
)
def test_bad_input_of_the_theory(options, words):
  with pytest.raises(ValueError, match=words):
    neural_ucb_theory(num_experts=E, num_tasks=V, **options)


@pytest.mark.parametrize(
  "options, words",
  [
    ({"exploration": -1.0}, "exploration=-1.0"),
    ({"regularisation": -1.0}, "regularisation=-1.0"),
    ({"stop_loss": -1.0}, "stop_loss=-1.0"),
    ({"sparse_every": 0}, "sparse_every=0"),
    ({"hidden": ()}, r"hidden=\(\)"),
  ],
)
def test_bad_input_of_the_public_code(options, words):
  with pytest.raises(ValueError, match=words):
    neural_ucb_practical(num_experts=E, num_tasks=V, **options)


def test_theory_is_narrower_with_many_experts_and_refuses_a_huge_state():
  def width(num_experts):
    bandit = neural_ucb_theory(num_experts=num_experts, num_tasks=8)
    state = jax.eval_shape(bandit.init, jax.random.key(0))
    leaves = jax.tree_util.tree_leaves_with_path(state)
    (width,) = {leaf.shape[0] for path, leaf in leaves if "output" in str(path)}
    return width

  assert (width(64), width(65)) == (32, 16)
  # P = 64 * 200 parameters: Z's root alone has 2 * 4 * 12800^2 = 1311e6 bytes.
  with pytest.raises(ValueError, match=r"1,31\d MB.*hidden=\(64,\)"):
    neural_ucb_theory(num_experts=192, num_tasks=8, hidden=(64,))
