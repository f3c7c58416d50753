"""A reward model whose tasks share what they have in common.

Bayesian regression on quadratic and random Fourier features of the merge
weights, with a common and a task's own part and with prior scales that are
learnt on the way (`multitask_ridge`). Nothing is trained by gradient steps. The
bonus of psi . r(x) is either

  thompson  beta times a draw of the mix's coefficients less their mean, drawn
            once a slot: a smooth function of x whose ascent costs P a step,
  ucb       beta times the posterior's standard deviation, K P^2 a step.

Letters: V tasks, E experts, K = V + 1 parts, P features.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from tanbr_jax.bandits import reward_model
from tanbr_jax.bandits.linear.concave_prior import LEAST_NOISE
from tanbr_jax.bandits.linear.conservative import (
  Caution,
  LinearParts,
  conservative,
  narrowing,
  with_defaults,
)
from tanbr_jax.bandits.linear.gradient_model import with_gradients
from tanbr_jax.bandits.reward_model import Estimate, RewardModel
from tanbr_jax.checks import ranges
from tanbr_jax.checks.names import check_choice
from tanbr_jax.checks.ranges import (
  AtLeastTwo,
  Chance,
  Count,
  NonNegative,
  Positive,
  PositiveOrInf,
  Share,
  Whole,
)
from tanbr_jax.regression import multitask_ridge, polynomial
from tanbr_jax.regression.multitask_ridge import MultitaskState, Prior


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Structure:
  """The static choices, which fix the compiled program."""

  num_tasks: int
  rule: str  # of EXPLORATION_RULES


def _init(structure: Structure, prior: Prior, key) -> MultitaskState:
  del key
  return multitask_ridge.init(prior, structure.num_tasks)


def _thompson(features_of, exploration, key, state, task_mix) -> Estimate:
  draw = multitask_ridge.sample_deviation(key, state, task_mix)
  # Both are linear in the features, whose fixed parts are taken once a slot.
  mean = multitask_ridge.mean(state, task_mix)
  both = polynomial.linear_function(
    features_of, jnp.stack([mean, exploration * draw])
  )

  def estimate(weights):
    values = both(weights)
    return values[0], values[1]

  return estimate


def _ucb(features_of, exploration, key, state, task_mix) -> Estimate:
  del key
  mean = multitask_ridge.mean(state, task_mix)

  def estimate(weights):
    features = polynomial.apply_features(features_of, weights)
    variance = multitask_ridge.variance(state, features, task_mix)
    deviation = jnp.sqrt(jnp.maximum(variance, 1e-12))
    return jnp.dot(mean, features), exploration * deviation

  return estimate


EXPLORATION_RULES = {"thompson": _thompson, "ucb": _ucb}


def _with_noise(state: MultitaskState) -> MultitaskState:
  """Rewards without noise leave something to explore by."""
  return dataclasses.replace(
    state, noise=jnp.maximum(state.noise, LEAST_NOISE**2)
  )


def _estimate(
  structure, features_of, exploration, key, state, task_mix
) -> Estimate:
  rule = EXPLORATION_RULES[structure.rule]
  return rule(features_of, exploration, key, _with_noise(state), task_mix)


def _update(features_of, prior, key, state, task_mix, weights, feedback):
  del key, task_mix
  reward, count = reward_model.observed(feedback)
  features = polynomial.apply_features(features_of, weights)
  return multitask_ridge.update(prior, state, features, reward, count)


def _coefficients(state) -> jax.Array:
  state = getattr(state, "posterior", state)  # of `with_gradients`
  return state.weights + state.weights_low


def _deviation(state, sums) -> jax.Array:
  state = getattr(state, "posterior", state)
  return multitask_ridge.deviation_of_sums(_with_noise(state), sums)


@ranges.checked
def multitask_model(
  *,
  num_experts: AtLeastTwo,
  num_tasks: Count,
  exploration: NonNegative = 0.7,
  rule: str = "thompson",
  num_fourier: Whole = 64,
  length_scale: Positive = 0.6,
  task_precision: Positive = 0.1,
  common_precision: PositiveOrInf = 0.03,
  prior_strength: PositiveOrInf = 0.5,
  forgetting: Chance = 1.0,
  least_exploration: Share = 0.5,
  concavity: NonNegative = 20.0,
  linear_scale: Positive | None = None,
  fourier_scale: Positive | None = None,
  allowance: PositiveOrInf | None = None,
  caution: NonNegative | None = None,
  radial_scale: NonNegative = 3.0,
  gradients: bool = False,
) -> RewardModel:
  """Returns the multi-task reward model; for its arguments see `multitask_ts`.

  Above `polynomial.MOST_EXPERTS_OF_PRODUCTS` experts the products are left out,
  but for the sum of squares.

  Raises:
    ValueError: if the rule is not known or a number out of range.
  """
  check_choice("rule", rule, EXPLORATION_RULES)
  # The model is linear in these fixed features of the merge weights.
  has_products = num_experts <= polynomial.MOST_EXPERTS_OF_PRODUCTS
  narrow = narrowing(num_experts)
  features = polynomial.fixed_features(
    num_experts,
    quadratic=has_products,
    radial=radial_scale,
    num_fourier=num_fourier,
    length_scale=length_scale,
    scales=(
      1.0,
      narrow if linear_scale is None else linear_scale,
      1.0,
      0.5 * narrow**2 if fourier_scale is None else fourier_scale,
    ),
  )
  # A prior scale for each of: constant, linear, curvature, Fourier features.
  curvatures = len(features.radii) + len(features.rows)
  sizes = 1, num_experts - 1, curvatures, len(features.phases)
  prior = multitask_ridge.make_prior(
    np.repeat(np.arange(4), sizes),
    task_precision=task_precision,
    common_precision=common_precision,
    strength=prior_strength,
    forgetting=forgetting,
  )
  # What is bound is traced, except for the structure.
  structure = Structure(num_tasks, rule)
  model = RewardModel(
    Partial(_init, structure, prior),
    Partial(_estimate, structure, features, jnp.float32(exploration)),
    Partial(_update, features, prior),
  )
  if gradients:
    model = with_gradients(model, features)
  linear = LinearParts(
    features,
    Partial(multitask_ridge.parts_of_mix),
    Partial(_coefficients),
    Partial(_deviation),
  )
  numbers = Caution(concavity, least_exploration, allowance, caution)
  numbers = with_defaults(numbers, num_experts)
  return conservative(model, linear, numbers, num_tasks=num_tasks)
