"""A Bayesian linear reward model on fixed features of the merge weights.

Task v's reward is w_v . phi(x) plus noise of variance s^2 / count_v, with a
normal prior on w_v; the posterior is exact and recursive (`regression.ridge`),
nothing is trained by gradient steps. The bonus of psi . r(x) is either

  ucb       beta s sqrt(sum_v psi_v^2 phi' A_v phi), the posterior's spread
            (LinUCB: Li et al. 2010; tasks are independent given x), or
  thompson  beta s sum_v psi_v z_v' S_v' phi with z_v standard normal, drawn
            once a slot (LinTS: Agrawal and Goyal 2013): a smooth function of
            x whose ascent costs P a step instead of V P^2.

s^2 is estimated from the innovations, whose variance is s^2 (1/count +
phi' A phi) [R]. Letters: V tasks, E experts, P features.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from tanbr_jax.bandits import reward_model
from tanbr_jax.bandits.reward_model import RewardModel
from tanbr_jax.checks import ranges
from tanbr_jax.checks.names import check_choice
from tanbr_jax.checks.ranges import Count, NonNegative, Positive
from tanbr_jax.regression import polynomial, ridge, square_root
from tanbr_jax.regression.polynomial import FixedFeatures


class LinearState(NamedTuple):
  """State of the linear reward model.

  Attributes:
    posterior: of the tasks' coefficients.
    noise: [] float32, the estimate of s^2.
    num_observations: [] float32, task rewards seen.
  """

  posterior: ridge.RidgeState
  noise: jax.Array
  num_observations: jax.Array


def _init(regression: ridge.Ridge, key) -> LinearState:
  del key
  return LinearState(regression.init(), jnp.float32(1e-4), jnp.float32(0))


def _ucb_bonus(key, posterior, task_mix):
  del key

  # sum_v psi_v^2 phi' S_v S_v' phi is the square of one product with all roots.
  root = posterior.root.high + posterior.root.low
  stacked = jnp.moveaxis(task_mix[:, None, None] * root, 0, 1)
  stacked = stacked.reshape(root.shape[1], -1)

  def bonus(features):
    whitened = jnp.matmul(
      features, stacked, precision=jax.lax.Precision.HIGHEST
    )
    return jnp.sqrt(jnp.maximum(jnp.sum(whitened**2), 1e-12))

  return bonus


def _thompson_bonus(key, posterior, task_mix):
  shape = posterior.root.high.shape[:2]
  draws = task_mix[:, None] * jax.random.normal(key, shape, jnp.float32)
  sample = jnp.sum(jax.vmap(square_root.colour)(posterior.root, draws), axis=0)

  def bonus(features):
    return jnp.dot(sample, features)

  return bonus


EXPLORATION_RULES = {
  "ucb": Partial(_ucb_bonus),
  "thompson": Partial(_thompson_bonus),
}


def _estimate(make_bonus, features, exploration, key, state, task_mix):
  posterior = state.posterior
  bonus = make_bonus(key, posterior, task_mix)
  mean = (posterior.weights + posterior.weights_low) @ task_mix
  scale = exploration * jnp.sqrt(state.noise)

  def estimate(weights):
    phi = polynomial.apply_features(features, weights)
    return jnp.dot(mean, phi), scale * bonus(phi)

  return estimate


def _update(features, regression, key, state, task_mix, weights, feedback):
  del key, task_mix
  reward, count = reward_model.observed(feedback)
  phi = polynomial.apply_features(features, weights)
  error = reward - regression.predict(state.posterior, phi)
  variance = regression.variance(state.posterior, phi)
  # s^2 is the noise of one request's reward.
  seen = (count > 0).astype(jnp.float32)
  squares = error**2 / (1 / jnp.maximum(count, 1) + variance)
  added = jnp.sum(seen)
  total = state.num_observations + added
  rate = added / jnp.maximum(total, 1)
  slot_noise = jnp.sum(seen * squares) / jnp.maximum(added, 1)
  noise = jnp.where(
    added > 0, state.noise + rate * (slot_noise - state.noise), state.noise
  )
  posterior = regression.update(state.posterior, phi, reward, count)
  return LinearState(posterior, noise, total)


@ranges.checked
def linear_model(
  features: FixedFeatures,
  *,
  num_tasks: Count,
  exploration: NonNegative,
  regularisation: Positive,
  rule: str = "ucb",
) -> RewardModel:
  """Returns the Bayesian linear reward model.

  Args:
    features: phi.
    num_tasks: V.
    exploration: beta, in units of the posterior's standard deviation.
    regularisation: lambda, the noise's variance over the prior's.
    rule: one of EXPLORATION_RULES.

  Raises:
    ValueError: if the rule is not known, lambda not positive or exploration
      negative.
  """
  check_choice("rule", rule, EXPLORATION_RULES)
  regression = ridge.per_task(
    num_features=polynomial.num_features(features),
    num_tasks=num_tasks,
    regularisation=regularisation,
  )
  make_bonus = EXPLORATION_RULES[rule]
  return RewardModel(
    Partial(_init, regression),
    Partial(_estimate, make_bonus, features, jnp.float32(exploration)),
    Partial(_update, features, regression),
  )
