"""A bandit that ascends the score of a reward model, without a tree.

Letters: E experts.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from tanbr_jax.bandits.ascent import Ascent
from tanbr_jax.bandits.base import Bandit, Context, Decision
from tanbr_jax.bandits.candidates import ascent_starts
from tanbr_jax.bandits.reward_model import RewardModel


class ModelAscentState(NamedTuple):
  """State of a bandit that scores candidates of its own.

  Attributes:
    model: of the reward model.
    previous: [E], the weights played last, a candidate of the next round.
  """

  model: NamedTuple
  previous: jax.Array


def _init(model: RewardModel, centre, key) -> ModelAscentState:
  return ModelAscentState(model.init(key), jnp.copy(centre))


def _select(climb, model: RewardModel, fresh, key, state, context) -> Decision:
  model_key, candidate_key = jax.random.split(key)
  estimate = model.estimate(model_key, state.model, context.task_mix)
  candidates = ascent_starts(candidate_key, state.previous, fresh.shape[0])
  best = climb(
    lambda weights: sum(estimate(weights)),
    candidates,
    jnp.ones(candidates.shape[0], bool),
  )
  mean, bonus = estimate(best.weights)
  aux = {"predicted_reward": mean, "exploration_bonus": bonus}
  return Decision(best.weights, aux)


def _update(model, key, state, context: Context, decision, feedback):
  weights = decision.merge_weights
  return ModelAscentState(
    model.update(key, state.model, context.task_mix, weights, feedback), weights
  )


def model_ascent(
  model: RewardModel,
  *,
  num_experts: int,
  num_candidates: int = 32,
  num_starts: int = 4,
  num_ascent_steps: int = 12,
) -> Bandit:
  """Plays where gradient ascent of mean plus bonus ends.

  Args:
    model: of the rewards.
    num_experts: E.
    num_candidates: fresh Dirichlet(1/2) starts a round, besides the vertices,
      the centre and the weights played last.
    num_starts: how many of the best candidates the ascent begins from.
    num_ascent_steps: 0 plays the best candidate.

  Returns:
    A `Bandit`; its decisions' aux holds predicted_reward and
    exploration_bonus.

  Raises:
    ValueError: if a number is out of range.
  """
  if num_candidates < 0 or num_ascent_steps < 0:
    raise ValueError(
      "num_candidates and num_ascent_steps must not be negative, got "
      f"num_candidates={num_candidates}, num_ascent_steps={num_ascent_steps}"
    )
  if not 1 <= num_starts <= num_experts + 2 + num_candidates:
    raise ValueError(
      "num_starts must be in [1, num_experts + 2 + num_candidates], got "
      f"num_starts={num_starts}, num_experts={num_experts}, "
      f"num_candidates={num_candidates}"
    )
  centre = jnp.full(num_experts, 1 / num_experts, jnp.float32)
  # Read for its shape alone, which `jit` then knows.
  fresh = jnp.zeros((num_candidates, 0), jnp.float32)
  climb = Ascent(num_starts=num_starts, num_steps=num_ascent_steps)
  return Bandit(
    Partial(_init, model, centre),
    Partial(_select, climb, model, fresh),
    Partial(_update, model),
  )
