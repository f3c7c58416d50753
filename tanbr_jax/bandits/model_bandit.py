"""A reward model, a source of candidates and a pick: a bandit.

A round: the source proposes candidates, the model values them, one is picked
and played, or the score is climbed from the best of them.
Letters: E experts, N candidates.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from tanbr_jax.bandits.base import (
  Bandit,
  Context,
  Decision,
  Feedback,
  begin,
)
from tanbr_jax.bandits.candidates import Source, make_source
from tanbr_jax.bandits.reward_model import RewardModel, observed
from tanbr_jax.bandits.wrappers.standardised import standardised
from tanbr_jax.simplex.ascent import Ascent
from tanbr_jax.simplex.search import best

# `pick(key, estimate, points [N, E], active [N])` gives the weights [E], the
# candidate and the bonus as it was added to the mean.
Pick = Callable[..., tuple[jax.Array, jax.Array, jax.Array]]


class ModelBanditState(NamedTuple):
  """State of a bandit on a reward model and of its candidates' source."""

  model: Any
  source: Any


def _highest(means, bonuses, points, active):
  chosen = best(jnp.where(active, means + bonuses, -jnp.inf))
  return points[chosen], chosen, bonuses[chosen]


def highest(key, estimate, points, active) -> tuple[jax.Array, ...]:
  """Picks the candidate of the highest mean plus bonus."""
  del key
  return _highest(*jax.vmap(estimate)(points), points, active)


def highest_draw(key, estimate, points, active) -> tuple[jax.Array, ...]:
  """Picks that of the highest draw, normal for each candidate anew."""
  means, bonuses = jax.vmap(estimate)(points)
  bonuses = bonuses * jax.random.normal(key, bonuses.shape, jnp.float32)
  return _highest(means, bonuses, points, active)


def climb(ascent: Ascent, key, estimate, points, active) -> tuple:
  """Picks where the ascent of mean plus bonus ends."""
  del key
  end = ascent(lambda weights: sum(estimate(weights)), points, active)
  return end.weights, end.candidate, estimate(end.weights)[1]


def _init(model: RewardModel, source: Source, key) -> ModelBanditState:
  return begin(ModelBanditState(model.init(key), source.init()), key)


def _select(model, source, pick, epsilon, key, state, context) -> Decision:
  keys = jax.random.split(key, 5)
  model_key, candidate_key, pick_key, coin_key, explore_key = keys
  # Propose, value, pick.
  points, active = source.propose(candidate_key, state.source)
  estimate = model.estimate(model_key, state.model, context.task_mix)
  weights, candidate, bonus = pick(pick_key, estimate, points, active)
  aux = {"exploration_bonus": bonus}
  # Sometimes a random candidate instead.
  if epsilon is not None:
    explores = jax.random.uniform(coin_key, dtype=jnp.float32) < epsilon(
      state.model
    )
    draws = jax.random.uniform(explore_key, active.shape, jnp.float32)
    drawn = jnp.argmax(jnp.where(active, draws, -1.0)).astype(jnp.int32)
    candidate = jnp.where(explores, drawn, candidate)
    weights = jnp.where(explores, points[candidate], weights)
    aux["explored"] = explores.astype(jnp.int32)
  weights = model.restrain(state.model, context.task_mix, weights)
  aux |= source.describe(state.source, candidate, weights)
  aux["predicted_reward"] = estimate(weights)[0]
  return Decision(weights, aux)


def _update(
  model, source, key, state, context: Context, decision, feedback: Feedback
) -> ModelBanditState:
  weights = decision.merge_weights
  seen = jnp.any(observed(feedback)[1] > 0)
  return ModelBanditState(
    model.update(key, state.model, context.task_mix, weights, feedback),
    source.update(state.source, decision, seen),
  )


def model_bandit(
  model: RewardModel,
  source: Source,
  pick: Pick,
  *,
  epsilon: Callable[[Any], jax.Array] | None = None,
  reward_range: tuple[float, float] | None = None,
) -> Bandit:
  """Returns the bandit.

  Its decisions' aux holds predicted_reward, exploration_bonus, what the source
  describes (see `candidates`), and with an epsilon explored, 1 where a random
  candidate was played; all scalars.

  Args:
    model: of the rewards.
    source: of candidates.
    pick: a `Partial` of `highest`, `highest_draw` or `climb`.
    epsilon: `epsilon(model_state) -> []`, the probability of playing a
      uniformly drawn candidate instead, a `Partial`; None for never.
    reward_range: (lowest, highest) reward, see `standardised`.
  """
  bandit = Bandit(
    Partial(_init, model, source),
    Partial(_select, model, source, pick, epsilon),
    Partial(_update, model, source),
  )
  return standardised(bandit, reward_range=reward_range)


def named_candidates(
  name: str, num_experts: int, num_candidates: int | None
) -> tuple[Source, Pick]:
  """Returns a source of that name and the pick that goes with it.

  Only the starts of an ascent are climbed from; see `candidates.make_source`.
  """
  pick = Partial(climb, Ascent()) if name == "ascent" else Partial(highest)
  return make_source(name, num_experts, num_candidates), pick
