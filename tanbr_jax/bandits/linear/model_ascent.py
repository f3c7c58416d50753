"""A bandit that ascends the score of a reward model, without a tree.

Letters: E experts.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from tanbr_jax.bandits.base import (
  Bandit,
  Context,
  Decision,
  Shape,
  begin,
)
from tanbr_jax.bandits.candidates import ascent_starts
from tanbr_jax.bandits.reward_model import RewardModel
from tanbr_jax.bandits.wrappers.standardised import standardised
from tanbr_jax.checks import ranges
from tanbr_jax.checks.ranges import AtLeastTwo, Count, PositiveOrInf, Whole
from tanbr_jax.simplex.ascent import Ascent


class ModelAscentState(NamedTuple):
  """State of a bandit that scores candidates of its own.

  Attributes:
    model: of the reward model.
    previous: [E], the weights played last, a candidate of the next round.
    num_rounds: [] int32, rounds played.
  """

  model: NamedTuple
  previous: jax.Array
  num_rounds: jax.Array


def _init(model: RewardModel, shape: Shape, key) -> ModelAscentState:
  centre = jnp.full(shape[1:], 1 / shape[1], jnp.float32)
  return begin(ModelAscentState(model.init(key), centre, jnp.int32(0)), key)


def _select(
  model: RewardModel, shape: Shape, climb, growth, key, state, context
) -> Decision:
  model_key, candidate_key = jax.random.split(key)
  estimate = model.estimate(model_key, state.model, context.task_mix)
  candidates = ascent_starts(candidate_key, state.previous, shape[0])
  candidates = candidates[_from_near_to_far(*candidates.shape)]
  allowed = growth * (state.num_rounds + 1).astype(jnp.float32)
  best = climb(
    lambda weights: sum(estimate(weights)),
    candidates,
    jnp.arange(candidates.shape[0], dtype=jnp.float32) <= allowed,
  )
  weights = model.restrain(state.model, context.task_mix, best.weights)
  mean, bonus = estimate(weights)
  aux = {"predicted_reward": mean, "exploration_bonus": bonus}
  return Decision(weights, aux)


def _from_near_to_far(num_starts: int, num_experts: int) -> np.ndarray:
  """Order of `ascent_starts`: played last, centre, draws, vertices."""
  draws = np.arange(num_experts + 2, num_starts)
  order = [[num_experts + 1, num_experts], draws, np.arange(num_experts)]
  return np.concatenate(order)


def _update(
  model: RewardModel, key, state, context: Context, decision, feedback
):
  weights = decision.merge_weights
  return ModelAscentState(
    model.update(key, state.model, context.task_mix, weights, feedback),
    weights,
    state.num_rounds + 1,
  )


@ranges.checked
def model_ascent(
  model: RewardModel,
  *,
  num_experts: AtLeastTwo,
  num_candidates: Whole = 32,
  num_starts: Count = 4,
  num_ascent_steps: Whole = 12,
  candidate_growth: PositiveOrInf = math.inf,
) -> Bandit:
  """Plays where gradient ascent of mean plus bonus ends.

  Args:
    model: of the rewards.
    num_experts: E.
    num_candidates: fresh Dirichlet(1/2) starts a round, besides the vertices,
      the centre and the weights played last.
    num_starts: how many of the best candidates the ascent begins from.
    num_ascent_steps: 0 plays the best candidate.
    candidate_growth: candidates that each round adds to the weights played
      last, with which the first round begins; infinity allows all at once. A
      model that knows nothing yet sends a bold search to the far corners [R].

  Returns:
    A `Bandit`; its decisions' aux holds predicted_reward and
    exploration_bonus.

  Raises:
    ValueError: if a number is out of range.
  """
  if num_starts > num_experts + 2 + num_candidates:
    raise ValueError(
      "num_starts must be at most num_experts + 2 + num_candidates, got "
      f"num_starts={num_starts}, num_experts={num_experts}, "
      f"num_candidates={num_candidates}"
    )
  shape = Shape((num_candidates, num_experts))
  climb = Ascent(num_starts=num_starts, num_steps=num_ascent_steps)
  bandit = Bandit(
    Partial(_init, model, shape),
    Partial(_select, model, shape, climb, jnp.float32(candidate_growth)),
    Partial(_update, model),
  )
  return standardised(bandit)
