"""A reward model that tells what its learner can afford to play.

A conservative bandit keeps an account of what it has lost to a baseline, and
leaves the baseline only as far as the account allows (Wu et al., "Conservative
bandits", ICML 2016; Kazerouni et al., "Conservative contextual linear bandits",
NIPS 2017). The baseline here is the plain average of the experts. The model is
linear, so that what all slots have gained over it is linear in what was played:

  G = sum_s psi_s . (r(x_s) - r(1/E)) = sum_k w_k . F_k + fall D,
  F_k = sum_s c_k(psi_s) (phi(x_s) - phi(1/E)),   D = sum_s |x_s - 1/E|^2,

with c_k the share of part k in the mix's reward, and the fall of the prior mean
(`concave_prior`). F and D are kept and G is told by the coefficients of today:
an estimate of what was won that made a learner bold is corrected by the rewards
that came of it. What a learner proposes is played if, with it, the mean of G
less `caution` posterior standard deviations is at least -allowance n / E, in
units of the rewards' first spread or of 1.5 standard deviations of the noise
if that is more, n the slots so far; otherwise a half, a quarter or an eighth of
the way from the centre to it, or the centre. Sums run over the last
1 / (1 - memory) slots.

What may be lost to the baseline is thus a number of rewards a slot, and not a
share of the baseline's reward as in the papers, since rewards have no zero [R].
Letters: V tasks, E experts, K parts, P features, N points.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from tanbr_jax.bandits.linear.concave_prior import (
  NOISE_SLOTS,
  fall,
  noise,
  with_concave_prior,
)
from tanbr_jax.bandits.linear.earned_exploration import (
  EarnedState,
  with_earned_exploration,
)
from tanbr_jax.bandits.reward_model import RewardModel, observed
from tanbr_jax.regression import polynomial
from tanbr_jax.regression.polynomial import FixedFeatures

# With more experts than these a learner is more cautious.
_FEW_EXPERTS = 8
_MEMORY = 0.999
# The rewards' first spread is taken to be at least so many standard deviations
# of the noise.
_LEAST_SPREAD = 1.5
# Shares of the way from the centre that are tried.
_SCALES = np.float32([1.0, 0.5, 0.25, 0.125])


class ConservativeState(NamedTuple):
  """State of a conservative model.

  Attributes:
    model: of the wrapped model, an `EarnedState`.
    played: [K, P] float32, F.
    distance: [] float32, D.
    num_slots: [] float32, n, as far as remembered.
  """

  model: EarnedState
  played: jax.Array
  distance: jax.Array
  num_slots: jax.Array


class LinearParts(NamedTuple):
  """How a model is linear: psi . r(x) = sum_k c_k(psi) w_k . phi(x).

  Attributes:
    features: phi.
    parts: `parts(task_mix [V]) -> [K]`, c.
    coefficients: `coefficients(state) -> [K, P]`, the posterior mean of w.
    deviation: `deviation(state, sums [N, K, P]) -> [N]`, the posterior
      standard deviation of sum_k w_k . F_k.
  """

  features: FixedFeatures
  parts: Callable[[jax.Array], jax.Array]
  coefficients: Callable[[Any], jax.Array]
  deviation: Callable[[Any, jax.Array], jax.Array]


class Caution(NamedTuple):
  """How near to the plain average a learner stays; see `conservative`.

  Attributes:
    concavity: of the prior mean.
    least_exploration: share of the bonus.
    allowance: what may be lost; None for that of `with_defaults`.
    caution: standard deviations; None likewise.
  """

  concavity: float | jax.Array
  least_exploration: float | jax.Array
  allowance: float | jax.Array | None
  caution: float | jax.Array | None


def _init(model: RewardModel, linear: LinearParts, key) -> ConservativeState:
  state = model.init(key)
  shape = jax.eval_shape(linear.coefficients, _linear(state)).shape
  zero = jnp.float32(0)
  return ConservativeState(state, jnp.zeros(shape, jnp.float32), zero, zero)


def _linear(state: EarnedState) -> Any:
  """The linear model's state, in that of earned exploration and of a prior."""
  return state.model.model


def _steps(
  features: FixedFeatures, points: chex.Array
) -> tuple[jax.Array, jax.Array]:
  """Returns phi(x) - phi(1/E) [N, P] and |x - 1/E|^2 [N] of points [N, E]."""
  centre = jnp.full((1, points.shape[1]), 1 / points.shape[1], jnp.float32)
  rows = jnp.concatenate([centre, points])
  phi = jax.vmap(Partial(polynomial.apply_features, features))(rows)
  return phi[1:] - phi[:1], jnp.sum((points - centre) ** 2, axis=1)


def _estimate(model: RewardModel, key, state: ConservativeState, task_mix):
  return model.estimate(key, state.model, task_mix)


def _update(
  model: RewardModel,
  linear: LinearParts,
  key,
  state: ConservativeState,
  task_mix,
  weights,
  feedback,
) -> ConservativeState:
  steps, distances = _steps(linear.features, weights[None])
  learnt = model.update(key, state.model, task_mix, weights, feedback)
  new = (
    _MEMORY * state.played + linear.parts(task_mix)[:, None] * steps,
    _MEMORY * state.distance + jnp.sum(task_mix) * distances[0],
    _MEMORY * state.num_slots + 1,
  )
  # A slot that showed nothing counts for nothing.
  seen = jnp.any(observed(feedback)[1] > 0)
  new = jax.tree.map(lambda a, b: jnp.where(seen, a, b), new, state[1:])
  return ConservativeState(learnt, *new)


def _restrain(
  linear: LinearParts,
  numbers: Caution,
  state: ConservativeState,
  task_mix: jax.Array,
  weights: jax.Array,
) -> jax.Array:
  # Points on the way from the centre to the proposal, and what would then have
  # been played in all.
  num_experts = weights.shape[0]
  centre = jnp.full_like(weights, 1 / num_experts)
  points = (
    centre[None] + jnp.asarray(_SCALES)[:, None] * (weights - centre)[None]
  )
  steps, distances = _steps(linear.features, points)
  parts = linear.parts(task_mix)
  sums = state.played[None] + parts[None, :, None] * steps[:, None, :]
  distances = state.distance + jnp.sum(task_mix) * distances
  # The least that was gained by it, and whether that is enough.
  model = _linear(state.model)
  gains = jnp.sum(linear.coefficients(model)[None] * sums, axis=(1, 2))
  gains = gains + fall(numbers.concavity, state.model.model) * distances
  gains = gains - numbers.caution * linear.deviation(model, sums)
  # The first spread is of one task's noise, or less, where few tasks are seen.
  spread = jnp.maximum(1.0, _LEAST_SPREAD * noise(state.model.model))
  allowed = numbers.allowance * spread / num_experts * (state.num_slots + 1)
  # The first slots tell the noise, which the prior mean is made of. As n fades,
  # these are NOISE_SLOTS + 1.
  affords = (gains + allowed >= 0) & (state.num_slots >= NOISE_SLOTS)
  chosen = points[jnp.argmax(affords)]
  # The proposal itself, to the bit.
  chosen = jnp.where(affords[0], weights, chosen)
  return jnp.where(jnp.any(affords), chosen, centre)


def narrowing(num_experts: int) -> float:
  """Returns 1 with up to 8 experts and 8 / E with more."""
  return min(1.0, _FEW_EXPERTS / num_experts)


def with_defaults(numbers: Caution, num_experts: int) -> Caution:
  """Fills in an allowance and a caution of None by the number of experts.

  The allowance is infinity with up to 8 experts and .2 with more: with few the
  prior mean and what is explored first keep the price of learning low, and an
  account that noisy rewards fill slowly costs more. The caution is 1 with up to
  8 experts and (8 / E)^2 with more: the more directions are unknown, the
  further a sum over all of them may be from its mean, and the longer a learner
  would stay where it learns nothing.
  """
  if numbers.allowance is None:
    allowance = math.inf if num_experts <= _FEW_EXPERTS else 0.2
    numbers = numbers._replace(allowance=allowance)
  if numbers.caution is None:
    numbers = numbers._replace(caution=narrowing(num_experts) ** 2)
  return numbers


def conservative(
  model: RewardModel, linear: LinearParts, numbers: Caution, *, num_tasks: int
) -> RewardModel:
  """Returns a model whose learner stays near the plain average at first.

  With a concave prior mean (`concave_prior`), exploration that is earned
  (`earned_exploration`) and an account.

  Args:
    model: of the rewards, with a prior mean of 0.
    linear: how it is linear.
    numbers: the concavity, in standard deviations of the noise; the share of
      the exploration before anything was earned; the allowance, what may be
      lost to the plain average in E slots, in units of the rewards that the
      model is told, infinity for everything; and the caution, posterior
      standard deviations by which gains are taken to be less than their mean.
    num_tasks: V.
  """
  numbers = Caution(*map(jnp.float32, numbers))
  model = with_concave_prior(model, numbers.concavity, num_tasks=num_tasks)
  model = with_earned_exploration(model, numbers.least_exploration)
  return RewardModel(
    Partial(_init, model, linear),
    Partial(_estimate, model),
    Partial(_update, model, linear),
    Partial(_restrain, linear, numbers),
  )
