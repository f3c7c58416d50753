"""Ascent on logits against optax, and against the derivative by autodiff."""

import first_order_plays as plays
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tanbr_jax import bandits

RNG = np.random.default_rng(1)
GRADIENTS = plays.centred(RNG.uniform(-1, 1, (30, 4))).astype(np.float32)
MIXES = RNG.dirichlet(np.ones(3), 30).astype(np.float32)


def by_optax(optimiser, contextual):
  """The weights played, where each derivative is found by autodiff."""

  def weights_of(logits, mix):
    rows = jax.nn.softmax(logits, axis=1)
    return mix @ rows if contextual else rows[0]

  @jax.jit
  def step(logits, state, gradient, mix):
    loss = lambda logits: -weights_of(logits, mix) @ gradient  # noqa: E731
    with jax.numpy_dtype_promotion("standard"):
      updates, state = optimiser.update(jax.grad(loss)(logits), state)
    return optax.apply_updates(logits, updates), state

  logits = jnp.zeros((3 if contextual else 1, 4), jnp.float32)
  state, played = optimiser.init(logits), []
  for gradient, mix in zip(GRADIENTS, MIXES, strict=True):
    played.append(weights_of(logits, mix))
    logits, state = step(logits, state, gradient, mix)
  return np.stack(played)


@pytest.mark.parametrize("contextual", [False, True])
@pytest.mark.parametrize("steps", ["adam", "plain"])
def test_steps_are_those_of_optax(steps, contextual):
  optimiser = {
    "adam": optax.adam(0.2, b1=0.5, b2=0.9, eps=1e-12),
    "plain": optax.sgd(0.2),
  }[steps]
  bandit = bandits.online_gradient(
    num_experts=4,
    num_tasks=3,
    learning_rate=0.2,
    steps=steps,
    square_decay=0.9,
    contextual=contextual,
    gradient_scale=1.0,
  )
  # 30 steps whose roundings of 6e-8 the first divisions by small roots raise.
  np.testing.assert_allclose(
    plays.play_linear(bandit, GRADIENTS, MIXES),
    by_optax(optimiser, contextual),
    atol=2e-5,
  )


@pytest.mark.parametrize("steps, rate", [("adam", 0.02), ("plain", 2.0)])
def test_it_finds_the_optimum_of_a_concave_reward(steps, rate):
  centres = np.array([[0.6, 0.2, 0.15, 0.05]], np.float32)
  bandit = bandits.online_gradient(
    num_experts=4, num_tasks=1, learning_rate=rate, steps=steps
  )
  weights = plays.climb_quadratic(
    bandit, centres, np.ones((400, 1), np.float32)
  )
  # Adam's steps stay as long as eta where derivatives vanish: its error is up
  # to eta p (1 - p) a weight.
  np.testing.assert_allclose(
    weights[-1], centres[0], atol=0.005 if steps == "adam" else 1e-3
  )


def test_a_weight_of_almost_nothing_comes_back():
  gradients = np.repeat([[1.0, 0, 0, -1], [-1.0, 0, 0, 1]], [2000, 100], axis=0)
  bandit = bandits.online_gradient(num_experts=4, num_tasks=1)
  weights = plays.play_linear(bandit, gradients)
  assert weights[1999, 3] < 1e-4 and weights[2099, 3] > 0.5


@pytest.mark.parametrize(
  "options, words",
  [
    ({"steps": "rmsprop"}, "steps='rmsprop'"),
    ({"learning_rate": -1.0}, "learning_rate=-1.0"),
    ({"mean_decay": 1.0}, "mean_decay=1.0"),
    ({"square_decay": float("nan")}, "square_decay=nan"),
  ],
)
def test_bad_choices_are_refused(options, words):
  with pytest.raises(ValueError, match=words) as error:
    bandits.online_gradient(num_experts=4, num_tasks=1, **options)
  assert "\n" not in str(error.value)
