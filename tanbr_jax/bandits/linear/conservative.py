"""A reward model that tells what its learner can afford to play.

A conservative bandit keeps an account of what it has lost to a baseline, and
leaves the baseline only as far as the account allows (Wu et al., "Conservative
bandits", ICML 2016; Kazerouni et al., "Conservative contextual linear bandits",
NIPS 2017). The baseline here is the plain average of the experts. The model is
linear, so that what all slots have gained over it is linear in what was played:

  G = sum_s psi_s . (r(x_s) - r(1/E)) = sum_k w_k . F_k - concavity D,
  F_k = sum_s c_k(psi_s) (phi(x_s) - phi(1/E)),   D = sum_s |x_s - 1/E|^2,

with c_k the share of part k in the mix's reward, and the fall of the prior mean
(`concave_prior`). F and D are kept and G is told by the coefficients of today:
an estimate of what was won that made a learner bold is corrected by the rewards
that came of it. What a learner proposes, x, is played if G and its own expected
gain are together at least -allowance n / E, n the slots so far; otherwise a
half, a quarter or an eighth of the way from the centre to it, or the centre.
Sums run over the last 1 / (1 - memory) slots.

By the mean of the posterior, and not by a lower bound as in the papers [R]: a
bound on E - 1 unknown slopes forbids for hundreds of slots what costs little in
the mean. Letters: E experts, K parts, P features.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from tanbr_jax.bandits.reward_model import RewardModel, observed
from tanbr_jax.regression import polynomial
from tanbr_jax.regression.polynomial import FixedFeatures

_MEMORY = 0.999
# Shares of the way from the centre that are tried.
_SCALES = np.float32([1.0, 0.5, 0.25, 0.125])


class ConservativeState(NamedTuple):
  """State of a model with an account.

  Attributes:
    model: of the wrapped model.
    played: [K, P] float32, F.
    distance: [] float32, D.
    num_slots: [] float32, n, as far as remembered.
  """

  model: Any
  played: jax.Array
  distance: jax.Array
  num_slots: jax.Array


class LinearParts(NamedTuple):
  """How a model is linear: psi . r(x) = sum_k c_k(psi) w_k . phi(x).

  Attributes:
    features: phi.
    coefficients: `coefficients(state) -> [K, P]`, the posterior mean of w.
    parts: `parts(task_mix [V]) -> [K]`, c.
    deviation: `deviation(state, sums [N, K, P]) -> [N]`, the posterior
      standard deviation of sum_k w_k . F_k.
    fall: `fall(state) -> []`, factor of |x - 1/E|^2 in the prior mean, which w
      leaves out.
  """

  features: FixedFeatures
  coefficients: Callable[[Any], jax.Array]
  parts: Callable[[jax.Array], jax.Array]
  deviation: Callable[[Any, jax.Array], jax.Array]
  fall: Callable[[Any], jax.Array]


class Account(NamedTuple):
  """The numbers of an account; traced.

  Attributes:
    allowance: [] see `with_account`.
    caution: [] see `with_account`.
    patience: [] see `with_account`.
    least_scale: [] the least share of the way that is played, if not 0.
  """

  allowance: jax.Array
  caution: jax.Array
  patience: jax.Array
  least_scale: jax.Array


def _init(model: RewardModel, linear: LinearParts, key) -> ConservativeState:
  state = model.init(key)
  shape = jax.eval_shape(linear.coefficients, state).shape
  zero = jnp.float32(0)
  return ConservativeState(state, jnp.zeros(shape, jnp.float32), zero, zero)


def _steps(
  linear: LinearParts, points: chex.Array
) -> tuple[jax.Array, jax.Array]:
  """Returns phi(x) - phi(1/E) [N, P] and |x - 1/E|^2 [N] of points [N, E]."""
  centre = jnp.full((1, points.shape[1]), 1 / points.shape[1], jnp.float32)
  rows = jnp.concatenate([centre, points])
  phi = jax.vmap(Partial(polynomial.apply_features, linear.features))(rows)
  return phi[1:] - phi[:1], jnp.sum((points - centre) ** 2, axis=1)


def _restrain(
  linear: LinearParts,
  account: Account,
  state: ConservativeState,
  task_mix: jax.Array,
  weights: jax.Array,
) -> jax.Array:
  num_experts = weights.shape[0]
  coefficients = linear.coefficients(state.model)
  allowed = account.allowance / num_experts * (state.num_slots + 1)
  centre = jnp.full_like(weights, 1 / num_experts)
  scales = jnp.asarray(_SCALES)[:, None]
  points = centre[None] + scales * (weights - centre)[None]
  steps, distances = _steps(linear, points)
  parts = linear.parts(task_mix)
  sums = state.played[None] + parts[None, :, None] * steps[:, None, :]
  falls = state.distance + jnp.sum(task_mix) * distances
  gains = jnp.sum(coefficients[None] * sums, axis=(1, 2))
  gains = gains + linear.fall(state.model) * falls
  gains = gains - account.caution * linear.deviation(state.model, sums)
  affords = (gains + allowed >= 0) & (scales[:, 0] >= account.least_scale)
  affords = affords & (state.num_slots >= account.patience)
  chosen = points[jnp.argmax(affords)]
  # At the first scale the point itself, to the bit.
  chosen = jnp.where(affords[0], weights, chosen)
  return jnp.where(jnp.any(affords), chosen, centre)


def _update(
  model: RewardModel,
  linear: LinearParts,
  key,
  state: ConservativeState,
  task_mix,
  weights,
  feedback,
) -> ConservativeState:
  steps, distances = _steps(linear, weights[None])
  parts = linear.parts(task_mix)
  new = ConservativeState(
    model.update(key, state.model, task_mix, weights, feedback),
    _MEMORY * state.played + parts[:, None] * steps,
    _MEMORY * state.distance + jnp.sum(task_mix) * distances[0],
    _MEMORY * state.num_slots + 1,
  )
  seen = jnp.any(observed(feedback)[1] > 0)
  kept = jax.tree.map(lambda a, b: jnp.where(seen, a, b), new[1:], state[1:])
  return ConservativeState(new.model, *kept)


def _estimate(model: RewardModel, key, state: ConservativeState, task_mix):
  return model.estimate(key, state.model, task_mix)


def with_account(
  model: RewardModel,
  linear: LinearParts,
  *,
  allowance: float | jax.Array,
  least_scale: float | jax.Array,
  caution: float | jax.Array,
  patience: float | jax.Array,
) -> RewardModel:
  """Returns a model that restrains what its learner proposes.

  Args:
    model: of the rewards.
    linear: how it is linear.
    allowance: what may be lost to the plain average in E slots, in units of the
      rewards that the model is told; infinity allows everything.
    least_scale: the least share of the way from the centre to what is proposed
      that is played where all of it cannot be afforded; above 1 for none.
  """
  account = Account(
    *map(jnp.float32, (allowance, caution, patience, least_scale))
  )
  return RewardModel(
    Partial(_init, model, linear),
    Partial(_estimate, model),
    Partial(_update, model, linear),
    Partial(_restrain, linear, account),
  )
