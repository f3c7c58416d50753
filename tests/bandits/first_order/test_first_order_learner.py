"""Gradients that are absent, not finite, huge or in other units."""

import first_order_plays as plays
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tanbr_jax import bandits
from tanbr_jax.bandits import Context
from tanbr_jax.bandits.first_order import learner

RNG = np.random.default_rng(3)
GRADIENTS = plays.centred(RNG.normal(size=(60, 4))).astype(np.float32)
NAMES = (
  "exponentiated_gradient",
  "online_gradient",
  "online_newton",
)


def bits(tree):
  return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(tree)]


@pytest.fixture(scope="module", params=NAMES)
def bandit(request):
  return bandits.REGISTRY[request.param](num_experts=4, num_tasks=1)


def test_absent_and_nonfinite_gradients_change_nothing(bandit):
  key, context = jax.random.key(0), Context(jnp.ones(1, jnp.float32))
  update, select = jax.jit(bandit.update), jax.jit(bandit.select)
  state = bandit.init(key)
  for gradient in GRADIENTS[:3]:
    told = plays.feedback(jnp.asarray(gradient))
    state = update(key, state, context, select(key, state, context), told)
  absent = [
    plays.feedback(jnp.ones(4, jnp.float32), count=0),
    plays.feedback(jnp.full(4, jnp.nan, jnp.float32)),
    plays.feedback(jnp.asarray([0, jnp.inf, 0, 0], jnp.float32)),
    plays.feedback(jnp.asarray([0, -jnp.inf, jnp.nan, 0], jnp.float32)),
  ]
  for told in absent:
    after = update(key, state, context, select(key, state, context), told)
    assert bits(after) == bits(state)
  assert int(state.num_gradients) == 3


@pytest.mark.parametrize("scale", [1e-3, 1e3, 1e8])
def test_decisions_do_not_depend_on_the_scale_of_gradients(bandit, scale):
  one = plays.play_linear(bandit, GRADIENTS)
  other = plays.play_linear(bandit, scale * GRADIENTS)
  # The division by the unit rounds otherwise: 60 steps of 6e-8 each, raised by
  # the exponentials and by Adam's first divisions by small roots.
  np.testing.assert_allclose(one, other, atol=1e-4)


@pytest.mark.parametrize("place", [0, 20])
@pytest.mark.parametrize("size", [1e30, 3e38])
def test_one_huge_gradient_is_forgotten(bandit, place, size):
  """Learning goes on: the easy problem's expert is found in what is left."""
  gradients = np.tile(np.float32([0.75, -0.25, -0.25, -0.25]), (200, 1))
  gradients += 0.1 * plays.centred(RNG.normal(size=(200, 4)))
  gradients[place] = [-size, size, 0, 0]
  weights = plays.play_linear(bandit, gradients)
  assert np.isfinite(weights).all()
  assert weights[-1, 0] > 0.9


def test_units_are_the_second_largest_norms():
  largest, sizes = jnp.zeros(2, jnp.float32), []
  for norm in (1.0, 0.5, 100.0, 0.75, 2.0, 0.0):
    gradient, largest = learner.to_units(
      jnp.asarray([norm, -norm / 2, -norm / 2], jnp.float32), largest
    )
    sizes.append(float(gradient[0]))
  # Units: 1 (alone), .5, then 100 is cut at 10 * .5 = 5 and 1 is the second
  # largest of 5, 1, .5; 2 becomes the second largest of 5, 2, 1.
  np.testing.assert_allclose(sizes, [1, 1, 5, 0.75, 1, 0], rtol=1e-6)
  np.testing.assert_allclose(largest, [5, 2], rtol=1e-6)


def test_means_of_gradients_do_not_matter(bandit):
  one = plays.play_linear(bandit, GRADIENTS)
  other = plays.play_linear(bandit, GRADIENTS + 4)
  # Taking 4 off again costs gradients of about 1 the digits of 2^-22.
  np.testing.assert_allclose(one, other, atol=1e-4)


@pytest.mark.parametrize(
  "name",
  ["eg", "late", pytest.param("posterior", marks=pytest.mark.slow), "usage"],
)
def test_feedback_without_the_signal_teaches_nothing_of_it(name):
  """Rewards alone: what needs more stays as it was, but for its counters."""
  sizes = {"num_experts": 3, "num_tasks": 2}
  eg = bandits.exponentiated_gradient(**sizes)
  bandit = {
    "eg": eg,
    "late": bandits.delayed(eg, delay=1, num_tasks=2),
    "posterior": bandits.multitask_ts(**sizes, gradients=True),
    "usage": bandits.follow_usage(**sizes),
  }[name]
  context = bandits.Context(jnp.full(2, 0.5))
  keys = jax.random.split(jax.random.key(0), 4)
  select, update = jax.jit(bandit.select), jax.jit(bandit.update)
  state = jax.jit(bandit.init)(keys[0])
  first = select(keys[1], state, context)
  for i in range(2):
    rewards = bandits.Feedback(jnp.ones(2), jnp.ones(2, jnp.int32))
    state = update(keys[2 + i], state, context, first, rewards)
  if name == "posterior":
    assert state.bandit.model.model.num_gradients == 0
  else:
    after = select(keys[1], state, context).merge_weights
    np.testing.assert_array_equal(after, first.merge_weights)
