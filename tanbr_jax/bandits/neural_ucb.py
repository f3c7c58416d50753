"""NeuralUCB on fresh random candidates: the paper's baseline Nucb.

Zhou, Li, Gu, "Neural Contextual Bandits with UCB-based Exploration", ICML
2020, with the arms of arXiv 2509.19781's comparison: weight vectors drawn
anew in every round. The reward model is that of `tanbr`'s network.
Letters: V tasks, E experts, N candidates.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from tanbr_jax.bandits.ascent import Ascent
from tanbr_jax.bandits.base import Bandit, Context, Decision
from tanbr_jax.bandits.neural_model import Numbers, Structure, neural_model
from tanbr_jax.bandits.reward_model import RewardModel


def _select(model: RewardModel, shape, key, state, context) -> Decision:
  model_key, candidate_key = jax.random.split(key)
  estimate = model.estimate(model_key, state, context.task_mix)
  # Normalised exponentials are Dirichlet(1): uniform on the simplex.
  draws = jax.random.exponential(candidate_key, shape.shape)
  candidates = draws / jnp.sum(draws, axis=-1, keepdims=True)
  best = Ascent(num_steps=0, num_starts=1)(
    lambda weights: sum(estimate(weights)),
    candidates,
    jnp.ones(candidates.shape[0], bool),
  )
  mean, bonus = estimate(best.weights)
  aux = {"predicted_reward": mean, "exploration_bonus": bonus}
  return Decision(best.weights, aux)


def _update(model, key, state, context: Context, decision, feedback) -> Any:
  weights = decision.merge_weights
  return model.update(key, state, context.task_mix, weights, feedback)


def neural_ucb(
  *,
  num_experts: int,
  num_tasks: int,
  num_candidates: int = 20,
  exploration: float = 0.03,
  regularisation: float = 0.01,
  ridge: float = 0.0,
  learning_rate: float = 3e-3,
  **structure: Any,
) -> Bandit:
  """NeuralUCB on `num_candidates` fresh Dirichlet(1) weight vectors a round.

  Args:
    num_experts: E.
    num_tasks: V.
    num_candidates: N.
    exploration: gamma, factor of the width.
    regularisation: lambda, Z_0 = lambda I.
    ridge: pull to the initial parameters.
    learning_rate: of Adam.
    **structure: fields of `neural_model.Structure`: hidden, confidence,
      num_steps, batch_size, replay_capacity, normalise_rewards.

  Raises:
    ValueError: if a value is out of range.
  """
  if num_candidates < 1:
    raise ValueError(
      f"num_candidates must be at least 1, got num_candidates={num_candidates}"
    )
  shapes = Structure(num_experts=num_experts, num_tasks=num_tasks, **structure)
  numbers = Numbers(exploration, regularisation, ridge, learning_rate)
  model = neural_model(shapes, numbers)
  shape = jnp.zeros((num_candidates, num_experts), jnp.float32)
  return Bandit(
    model.init, Partial(_select, model, shape), Partial(_update, model)
  )
