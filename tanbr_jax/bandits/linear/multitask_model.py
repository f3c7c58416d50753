"""A reward model whose tasks share what they have in common.

Bayesian regression on fixed features of the merge weights, with a common and a
task's own part and with prior scales that are learnt on the way
(`multitask_ridge`). Nothing is trained by gradient steps. The bonus of
psi . r(x) is either

  thompson  beta times a draw of the mix's coefficients less their mean, drawn
            once a slot: a smooth function of x whose ascent costs P a step,
  ucb       beta times the posterior's standard deviation, K P^2 a step.

Letters: V tasks, E experts, K = V + 1 parts, P features.
"""

from collections.abc import Callable
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from tanbr_jax.bandits import reward_model
from tanbr_jax.bandits.reward_model import RewardModel
from tanbr_jax.regression import multitask_ridge, polynomial
from tanbr_jax.regression.multitask_ridge import MultitaskState, Prior
from tanbr_jax.regression.polynomial import FixedFeatures


class _Bound(NamedTuple):
  features: FixedFeatures
  prior: Prior
  tasks: jax.Array  # [V] zeros, read for their number alone
  exploration: jax.Array


def _init(bound: _Bound, key) -> MultitaskState:
  del key
  return multitask_ridge.init(bound.prior, bound.tasks.shape[0])


def _thompson_bonus(key, state, task_mix) -> Callable[[jax.Array], jax.Array]:
  draw = multitask_ridge.sample_deviation(key, state, task_mix)
  return lambda features: jnp.dot(draw, features)


def _ucb_bonus(key, state, task_mix) -> Callable[[jax.Array], jax.Array]:
  del key

  def bonus(features):
    variance = multitask_ridge.variance(state, features, task_mix)
    return jnp.sqrt(jnp.maximum(variance, 1e-12))

  return bonus


EXPLORATION_RULES = {
  "thompson": Partial(_thompson_bonus),
  "ucb": Partial(_ucb_bonus),
}


def _estimate(make_bonus, bound: _Bound, key, state, task_mix):
  bonus = make_bonus(key, state, task_mix)
  mean = multitask_ridge.mean(state, task_mix)

  def estimate(weights):
    features = polynomial.apply_features(bound.features, weights)
    return jnp.dot(mean, features), bound.exploration * bonus(features)

  return estimate


def _update(bound: _Bound, key, state, task_mix, weights, feedback):
  del key, task_mix
  reward, count = reward_model.observed(feedback)
  features = polynomial.apply_features(bound.features, weights)
  return multitask_ridge.update(bound.prior, state, features, reward, count)


def multitask_model(
  features: FixedFeatures,
  prior: Prior,
  *,
  num_tasks: int,
  exploration: chex.Numeric,
  rule: str = "thompson",
) -> RewardModel:
  """Returns the multi-task reward model.

  Args:
    features: phi, of P features.
    prior: of `multitask_ridge.make_prior`, over the same features.
    num_tasks: V.
    exploration: beta, in units of the posterior's standard deviation.
    rule: one of EXPLORATION_RULES.

  Raises:
    ValueError: if the rule is not known or exploration negative.
  """
  if rule not in EXPLORATION_RULES:
    raise ValueError(
      f"rule must be one of {sorted(EXPLORATION_RULES)}, got {rule=}"
    )
  if not exploration >= 0:
    raise ValueError(f"exploration must not be negative, got {exploration=}")
  bound = _Bound(
    features,
    prior,
    jnp.zeros(num_tasks, jnp.float32),
    jnp.float32(exploration),
  )
  return RewardModel(
    Partial(_init, bound),
    Partial(_estimate, EXPLORATION_RULES[rule], bound),
    Partial(_update, bound),
  )
