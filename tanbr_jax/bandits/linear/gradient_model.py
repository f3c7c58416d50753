"""A reward model that learns from a slot's gradient beside its rewards.

The reward of a slot is sum_v psi_v r_v(x), r_v = (w_0 + w_v)' phi(x) in the
multi-task model, so that its derivative along an orthonormal direction q of the
simplex is linear in the same coefficients,

  q . g = sum_v psi_v (w_0 + w_v)' J q + noise,   J = d phi / d x at the point,

and E - 1 directions are E - 1 more observations of it. The gradient is taken to
be that of the reward, in its units; the variance of its noise is learnt from
the innovations, what the features cannot express included. psi is the share of
the tasks among the slot's rewards, or the shown mix where there was none.
Letters: V tasks, E experts, P features.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from tanbr_jax.bandits import reward_model
from tanbr_jax.bandits.first_order.learner import observed_gradient
from tanbr_jax.bandits.reward_model import RewardModel
from tanbr_jax.regression import multitask_ridge, polynomial
from tanbr_jax.regression.polynomial import FixedFeatures

# [R] Gradients over which the noise is averaged, at most, and the share of the
# first one's square that is taken for noise before there is an innovation.
_MEMORY, _FIRST_NOISE = 50.0, 0.1
_LEAST_NOISE = 1e-12


class GradientModelState(NamedTuple):
  """State of a model that learns from gradients too.

  Attributes:
    posterior: of the multi-task model.
    noise: [] float32, variance of a directional derivative's noise.
    num_gradients: [] float32, gradients learnt from.
  """

  posterior: Any
  noise: jax.Array
  num_gradients: jax.Array


def _init(model: RewardModel, key) -> GradientModelState:
  return GradientModelState(model.init(key), jnp.float32(0), jnp.float32(0))


def _estimate(model: RewardModel, key, state: GradientModelState, task_mix):
  return model.estimate(key, state.posterior, task_mix)


def _update(
  model: RewardModel,
  features: FixedFeatures,
  key,
  state: GradientModelState,
  task_mix,
  weights,
  feedback,
) -> GradientModelState:
  posterior = model.update(key, state.posterior, task_mix, weights, feedback)
  if feedback.gradient is None:
    return state._replace(posterior=posterior)
  # Directional derivatives, of the gradient and of the features.
  gradient, seen = observed_gradient(feedback)
  slopes = _dot(gradient, features.basis)
  jacobian = jax.jacfwd(lambda x: polynomial.apply_features(features, x))
  directions = _dot(jacobian(weights), features.basis).T
  # The mix of the slot, as it was seen.
  _, count = reward_model.observed(feedback)
  total = jnp.sum(count)
  share = jnp.where(total > 0, count / jnp.maximum(total, 1.0), task_mix)
  first = _FIRST_NOISE * jnp.mean(slopes**2)
  noise = jnp.where(state.num_gradients > 0, state.noise, first)
  noise = jnp.maximum(noise, _LEAST_NOISE)
  learnt, estimate = multitask_ridge.update_mixture(
    posterior, directions, multitask_ridge.parts_of_mix(share), slopes, noise
  )
  num_gradients = state.num_gradients + 1
  rate = 1 / jnp.minimum(num_gradients, _MEMORY)
  new = GradientModelState(
    learnt, noise + rate * (estimate - noise), num_gradients
  )
  old = state._replace(posterior=posterior)
  return jax.tree.map(lambda a, b: jnp.where(seen, a, b), new, old)


def _dot(a: jax.Array, b: jax.Array) -> jax.Array:
  return jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)


def with_gradients(model: RewardModel, features: FixedFeatures) -> RewardModel:
  """Returns a model that learns from rewards and from gradients.

  Args:
    model: whose state is a `MultitaskState`.
    features: that it is linear in.
  """
  return RewardModel(
    Partial(_init, model),
    Partial(_estimate, model),
    Partial(_update, model, features),
  )
