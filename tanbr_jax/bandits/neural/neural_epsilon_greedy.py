"""Epsilon-greedy on a reward network: no confidence is needed.

In slot t (from 0) a uniformly drawn candidate is played with probability
min(1, epsilon (1 + t)^-decay), otherwise the best one by the network. The
falling rate is that of Auer, Cesa-Bianchi and Fischer, "Finite-time analysis
of the multiarmed bandit problem", Machine Learning 2002, sec. 3, with decay 1;
[R] ours defaults to 1/2, as a network learns more slowly than a mean.
"""

import functools

import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from tanbr_jax.bandits.base import Bandit
from tanbr_jax.bandits.model_bandit import model_bandit, named_candidates
from tanbr_jax.bandits.neural.neural_learner import (
  Learner,
  LearnerState,
  make_rates,
)
from tanbr_jax.bandits.neural.neural_training import ADAM
from tanbr_jax.bandits.reward_model import RewardModel
from tanbr_jax.checks import ranges
from tanbr_jax.checks.ranges import AtLeastTwo, Count, NonNegative, Share


def _init(learner: Learner, key) -> LearnerState:
  return learner.init(key)


def _estimate(learner: Learner, key, state: LearnerState, task_mix):
  del key
  predict = functools.partial(learner.predict, state, task_mix)
  return lambda weights: (predict(weights), jnp.float32(0))


def _update(learner: Learner, numbers, key, state, task_mix, weights, feedback):
  del task_mix
  return learner.update(numbers, key, state, weights, feedback)


def _epsilon(first, decay, state: LearnerState) -> jax.Array:
  slots = state.replay.num_slots.astype(jnp.float32)
  return jnp.minimum(first * (1 + slots) ** -decay, 1.0)


@ranges.checked
def neural_epsilon_greedy(
  *,
  num_experts: AtLeastTwo,
  num_tasks: Count,
  epsilon: Share = 0.5,
  decay: NonNegative = 0.5,
  candidates: str = "dirichlet",
  num_candidates: Count | None = None,
  learning_rate: NonNegative = 3e-3,
  hidden: tuple[Count, ...] = (64, 64),
  num_steps: Count = 2,
  replay_capacity: Count = 4096,
) -> Bandit:
  """Plays the network's best candidate, sometimes a random one.

  Args:
    num_experts: E.
    num_tasks: V.
    epsilon: probability of a random candidate in the first slot.
    decay: exponent with which it falls; 0 keeps it.
    candidates: "dirichlet" (fresh uniform draws) or "tree" (leaves of a tree
      that grows where it is played), whose best is played, or "ascent", which
      climbs the score from fresh draws.
    num_candidates: how many; None for 20, 128 or 32.
    learning_rate: of the network's Adam.
    hidden: widths of the network's hidden layers.
    num_steps: gradient steps a round.
    replay_capacity: the last slots that are trained on.

  Raises:
    ValueError: if a choice is not known or a number out of range.
  """
  learner = Learner(
    ADAM, num_experts, num_tasks, tuple(hidden), num_steps, replay_capacity
  )
  model = RewardModel(
    Partial(_init, learner),
    Partial(_estimate, learner),
    Partial(_update, learner, make_rates(learning_rate)),
  )
  return model_bandit(
    model,
    *named_candidates(candidates, num_experts, num_candidates),
    epsilon=Partial(_epsilon, jnp.float32(epsilon), jnp.float32(decay)),
  )
