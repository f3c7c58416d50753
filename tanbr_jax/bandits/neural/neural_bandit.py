"""What the neural bandits share: candidates, a rule that picks one, learning.

A round: a source proposes candidates, a reward model values them, a rule picks
one; with candidates "ascent" the score is climbed from the best of them.
Letters: V tasks, E experts, N candidates.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from tanbr_jax.bandits.base import Bandit, Context, Decision, Feedback
from tanbr_jax.bandits.candidates import Source, TreeState
from tanbr_jax.bandits.reward_model import RewardModel, observed
from tanbr_jax.simplex.ascent import Ascent

Epsilon = Callable[[Any], jax.Array]


class NeuralBanditState(NamedTuple):
  """State of a neural bandit.

  Attributes:
    model: of the reward model.
    source: of the candidates' source.
  """

  model: Any
  source: Any


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Rule:
  """How one candidate is picked.

  Attributes:
    score: "bonus" for mean + bonus, "normal" for mean + z bonus with z drawn
      anew for each candidate, "mean" for the mean alone.
    climb: the ascent of the score; None plays a candidate as it is.
  """

  score: str
  climb: Ascent | None = None


class _Bound(NamedTuple):
  model: RewardModel
  source: Source
  epsilon: Epsilon


def never(state: Any) -> jax.Array:
  """Returns 0: the share of rounds with a random candidate."""
  del state
  return jnp.float32(0)


def _best(rule: Rule, key, estimate, points, active):
  """Returns the weights, the candidate and the bonus that was added."""
  if rule.climb is not None:
    if rule.score == "mean":
      score = lambda weights: estimate(weights)[0]  # noqa: E731
    else:
      score = lambda weights: sum(estimate(weights))  # noqa: E731
    best = rule.climb(score, points, active)
    return best.weights, best.candidate, estimate(best.weights)[1]
  means, bonuses = jax.vmap(estimate)(points)
  if rule.score == "normal":
    bonuses = bonuses * jax.random.normal(key, bonuses.shape)
  values = means if rule.score == "mean" else means + bonuses
  best = jnp.argmax(jnp.where(active, values, -jnp.inf)).astype(jnp.int32)
  return points[best], best, bonuses[best]


def _init(bound: _Bound, key) -> NeuralBanditState:
  return NeuralBanditState(bound.model.init(key), bound.source.init())


def _select(rule: Rule, bound: _Bound, key, state, context) -> Decision:
  model_key, candidate_key = jax.random.split(key)
  rule_key, coin_key, explore_key = jax.random.split(model_key, 3)
  points, active = bound.source.propose(candidate_key, state.source)
  estimate = bound.model.estimate(model_key, state.model, context.task_mix)
  weights, candidate, bonus = _best(rule, rule_key, estimate, points, active)
  epsilon = bound.epsilon(state.model)
  explores = jax.random.uniform(coin_key) < epsilon
  drawn = jnp.argmax(
    jnp.where(active, jax.random.uniform(explore_key, active.shape), -1.0)
  )
  candidate = jnp.where(explores, drawn.astype(jnp.int32), candidate)
  weights = jnp.where(explores, points[candidate], weights)
  aux = {
    "candidate": candidate,
    "predicted_reward": estimate(weights)[0],
    "exploration_bonus": bonus,
    "explored": explores.astype(jnp.int32),
  }
  return Decision(weights, aux | _describe(state.source, candidate))


def _describe(source: Any, candidate: jax.Array) -> dict[str, jax.Array]:
  """Returns what a reader wants to see of a tree; nothing of other sources."""
  if not isinstance(source, TreeState):
    return {}
  tree = source.tree
  return {
    "leaf": candidate,
    "depth": tree.depths[candidate],
    "max_depth": jnp.max(jnp.where(tree.is_leaf, tree.depths, 0)),
    "num_leaves": jnp.sum(tree.is_leaf, dtype=jnp.int32),
    "tree_full": tree.full,
  }


def _update(
  bound: _Bound, key, state, context: Context, decision, feedback: Feedback
) -> NeuralBanditState:
  weights = decision.merge_weights
  seen = jnp.any(observed(feedback)[1] > 0)
  return NeuralBanditState(
    bound.model.update(key, state.model, context.task_mix, weights, feedback),
    bound.source.update(state.source, decision.aux["candidate"], weights, seen),
  )


def neural_bandit(
  model: RewardModel,
  source: Source,
  rule: Rule,
  *,
  epsilon: Epsilon | None = None,
) -> Bandit:
  """Returns the bandit.

  Its decisions' aux holds candidate, predicted_reward, exploration_bonus and
  explored (1 where a random candidate was played), and for a tree leaf, depth,
  max_depth, num_leaves and tree_full; all scalars.

  Args:
    model: of the rewards.
    source: of candidates.
    rule: how one is picked.
    epsilon: `epsilon(model_state) -> []`, the probability of playing a
      uniformly drawn candidate instead; a `Partial`. None for 0.
  """
  bound = _Bound(model, source, Partial(never) if epsilon is None else epsilon)
  return Bandit(
    Partial(_init, bound),
    Partial(_select, rule, bound),
    Partial(_update, bound),
  )
