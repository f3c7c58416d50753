"""Linear bandits on quadratic features of the weights, with ascent.

LinUCB (Li et al. 2010) per task on features of the merge weights, weighted by
the task mix; the score is maximised by gradient ascent on the simplex instead
of over a finite set of arms [R]. Letters: V tasks, E experts.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from tanbr_jax.bandits import ascent
from tanbr_jax.bandits.base import Bandit, Context, Decision
from tanbr_jax.bandits.candidates import ascent_starts
from tanbr_jax.bandits.linear_model import linear_model
from tanbr_jax.bandits.reward_model import RewardModel
from tanbr_jax.networks import polynomial


class _State(NamedTuple):
  """State of a bandit that scores candidates of its own.

  Attributes:
    model: of the reward model.
    previous: [E], the weights played last, a candidate of the next round.
  """

  model: NamedTuple
  previous: jax.Array


def _init(model: RewardModel, example, key) -> _State:
  num_experts = example.shape[0]
  return _State(
    model.init(key), jnp.full(num_experts, 1 / num_experts, jnp.float32)
  )


def _select(
  climb, model: RewardModel, candidates, key, state, context
) -> Decision:
  model_key, candidate_key = jax.random.split(key)
  estimate = model.estimate(model_key, state.model, context.task_mix)
  candidates = ascent_starts(candidate_key, state.previous, candidates.shape[0])
  best = climb(
    lambda weights: sum(estimate(weights)),
    candidates,
    jnp.ones(candidates.shape[0], bool),
  )
  _, bonus = estimate(best.weights)
  return Decision(best.weights, {"exploration_bonus": bonus})


def _update(model, key, state, context: Context, decision, feedback) -> _State:
  weights = decision.merge_weights
  return _State(
    model.update(key, state.model, context.task_mix, weights, feedback), weights
  )


def lin_ucb(
  *,
  num_experts: int,
  num_tasks: int,
  features: str = "quadratic",
  exploration: float = 1.0,
  regularisation: float = 0.001,
  constant_scale: float = 1.0,
  num_candidates: int = 32,
) -> Bandit:
  """LinUCB on features of the merge weights, with ascent of the score.

  Args:
    num_experts: E.
    num_tasks: V.
    features: "quadratic" (E (E + 1) / 2 of them) or "linear" (E).
    exploration: beta, the factor of the posterior's standard deviation.
    regularisation: lambda, the noise's variance over the coefficients'.
    constant_scale: prior standard deviation of the rewards' constant part,
      where that of the others is 1; large where rewards lie far from zero.
    num_candidates: fresh Dirichlet(1/2) starts a round, besides the vertices,
      the centre and the weights played last.

  Raises:
    ValueError: if `features` is neither, or a number is out of range.
  """
  if features not in ("quadratic", "linear"):
    raise ValueError(
      f"features must be 'quadratic' or 'linear', got {features=}"
    )
  model = linear_model(
    polynomial.fixed_features(
      num_experts,
      quadratic=features == "quadratic",
      scales=(constant_scale, 1.0, 1.0),
    ),
    num_tasks=num_tasks,
    exploration=exploration,
    regularisation=regularisation,
  )
  example = jnp.zeros(num_experts, jnp.float32)
  candidates = jnp.zeros((num_candidates, num_experts), jnp.float32)
  return Bandit(
    Partial(_init, model, example),
    Partial(_select, ascent.Ascent(), model, candidates),
    Partial(_update, model),
  )
