"""Exponentiated gradient against a loop in float64 and against its bound."""

import first_order_plays as plays
import numpy as np
import pytest

from tanbr_jax import bandits

SIZES = {"num_experts": 4, "num_tasks": 1}
RNG = np.random.default_rng(0)
GRADIENTS = plays.centred(RNG.uniform(-1, 1, (40, 4)))


def by_hand(gradients, mixes, learning_rate, share):
  rows = np.full((mixes.shape[1], gradients.shape[1]), 1 / gradients.shape[1])
  played = []
  for gradient, mix in zip(gradients, mixes, strict=True):
    played.append(mix @ rows)
    rows = rows * np.exp(learning_rate * mix[:, None] * gradient)
    rows /= rows.sum(1, keepdims=True)
    rows = (1 - share) * rows + share / rows.shape[1]
  return np.array(played)


@pytest.mark.parametrize("share", [0.0, 0.1])
@pytest.mark.parametrize("contextual", [False, True])
def test_steps_are_those_of_a_loop(share, contextual):
  num_tasks = 3 if contextual else 1
  mixes = RNG.dirichlet(np.ones(num_tasks), 40)
  bandit = bandits.exponentiated_gradient(
    num_experts=4,
    num_tasks=num_tasks,
    learning_rate=0.7,
    share=share,
    contextual=contextual,
    gradient_scale=2.0,
  )
  expected = by_hand(GRADIENTS / 2, mixes, 0.7, share)
  # 40 float32 steps of a few roundings of 6e-8 on logits of at most 30.
  np.testing.assert_allclose(
    plays.play_linear(bandit, GRADIENTS, mixes), expected, atol=1e-5
  )


def test_regret_is_below_the_bound_on_adversarial_rewards():
  """The adversary pays least what is played most; G = 1 after centring."""
  num_rounds, num_experts = 400, 4
  rate = np.sqrt(2 * np.log(num_experts) / num_rounds)
  bound = np.sqrt(2 * num_rounds * np.log(num_experts))
  streams = {
    "noise": RNG.choice([-1.0, 1.0], (num_rounds, num_experts)),
    # What leads pays less from each quarter on to the next.
    "turns": np.repeat(np.eye(num_experts), num_rounds // num_experts, axis=0),
    # Two experts in turn, which a greedy learner always follows too late.
    "alternates": np.tile([[1.0, -1, 0, 0], [-1.0, 1, 0, 0]], (200, 1)),
  }
  for gradients in streams.values():
    gradients = plays.centred(gradients)
    gradients /= np.abs(gradients).max()
    weights = plays.play_linear(
      bandits.exponentiated_gradient(
        **SIZES, learning_rate=rate, share=0.0, gradient_scale=1.0
      ),
      gradients,
    )
    earned = np.sum(weights * gradients)
    assert gradients.sum(0).max() - earned <= bound


def test_it_finds_the_optimum_of_a_concave_reward():
  centres = np.array([[0.6, 0.2, 0.15, 0.05]], np.float32)
  bandit = bandits.exponentiated_gradient(**SIZES, learning_rate=0.5, share=0.0)
  weights = plays.climb_quadratic(
    bandit, centres, np.ones((300, 1), np.float32)
  )
  # Near c the error shrinks by 1 - eta c_e / G a slot at least, with G = .35
  # the first gradient: by exp(-300 * .5 * .05 / .35) < 1e-9.
  np.testing.assert_allclose(weights[-1], centres[0], atol=1e-4)


def test_a_lost_expert_comes_back():
  """1,000 slots against an expert, then as few for it as the share allows."""
  gradients = np.repeat([[1.0, 0, 0, -1], [-1.0, 0, 0, 1]], [1000, 40], axis=0)
  bandit = bandits.exponentiated_gradient(
    **SIZES, learning_rate=0.5, share=1e-2
  )
  weights = plays.play_linear(bandit, gradients)
  # From .01 / 4 on, its odds to the first grow by exp(1) a slot: 1e3 in 7.
  assert weights[999, 3] < 0.01 and weights[1039, 3] > 0.9


@pytest.mark.parametrize(
  "options",
  [
    {"learning_rate": 0.0},
    {"learning_rate": float("nan")},
    {"share": 1.0},
    {"share": -0.1},
    {"gradient_scale": 0.0},
    {"gradient_scale": float("inf")},
  ],
)
def test_bad_numbers_are_refused(options):
  ((name, value),) = options.items()
  with pytest.raises(ValueError, match=f"{name}={value}") as error:
    bandits.exponentiated_gradient(**SIZES, **options)
  assert "\n" not in str(error.value)
