"""Linear bandits on polynomial features of the weights, with ascent.

LinUCB (Li et al. 2010) and LinTS (Agrawal and Goyal 2013) per task on features
of the merge weights, weighted by the task mix; the score is maximised by
gradient ascent on the simplex instead of over a finite set of arms, and both
stay near the plain average at first (`conservative`) [R]. Letters: V tasks, E
experts, P features. The state holds 2 V P^2 numbers.
"""

import jax
from jax.tree_util import Partial

from tanbr_jax.bandits.base import Bandit, check_state_size
from tanbr_jax.bandits.linear.conservative import (
  Caution,
  LinearParts,
  conservative,
  narrowing,
  with_defaults,
)
from tanbr_jax.bandits.linear.linear_model import (
  coefficients,
  deviation_of_sums,
  linear_model,
)
from tanbr_jax.bandits.linear.model_ascent import model_ascent
from tanbr_jax.checks import ranges
from tanbr_jax.checks.names import check_choice
from tanbr_jax.checks.ranges import (
  AtLeastTwo,
  Count,
  NonNegative,
  Positive,
  PositiveOrInf,
  Share,
  Whole,
)
from tanbr_jax.regression import polynomial

FEATURES = ("quadratic", "fourier", "linear")
# Of the Fourier features, as `multitask_ts` has them.
_NUM_FOURIER, _LENGTH_SCALE = 64, 0.6


def _mix(task_mix: jax.Array) -> jax.Array:
  """Every task is a part of its own."""
  return task_mix


@ranges.checked
def lin_ucb(
  *,
  num_experts: AtLeastTwo,
  num_tasks: Count,
  rule: str = "ucb",
  features: str | None = None,
  exploration: NonNegative = 2.0,
  regularisation: Positive | None = None,
  constant_scale: Positive = 1.0,
  num_candidates: Whole = 32,
  concavity: NonNegative = 20.0,
  least_exploration: Share = 0.2,
  allowance: PositiveOrInf | None = None,
  caution: NonNegative | None = None,
  radial_scale: NonNegative = 3.0,
) -> Bandit:
  """LinUCB on features of the merge weights, with ascent of the score.

  Args:
    num_experts: E.
    num_tasks: V.
    rule: "ucb"; "thompson" is `lin_ts`, see `linear_model`.
    features: "quadratic" (E (E + 1) / 2 of them), "linear" (E), or "fourier"
      (E linear and 64 random Fourier features, which bend the reward at a size
      that grows with E^2 only); None for "quadratic" with up to 16 experts and
      "fourier" with more.
    exploration: beta, the factor of the posterior's standard deviation.
    regularisation: lambda, the noise's variance over the coefficients', those
      of slopes and Fourier features being 8 / E and its square of the others'
      standard deviation with more than 8 experts; None for .001 with up to 8
      experts and .001 E / 8 with more.
    constant_scale: prior standard deviation of the rewards' constant part,
      less the offset that was learnt, where that of the others is 1.
    num_candidates: fresh Dirichlet(1/2) starts a round, besides the vertices,
      the centre and the weights played last.
    concavity: of the prior mean, see `multitask_ts`.
    least_exploration: see `multitask_ts`.
    allowance: see `multitask_ts`; infinity, with concavity 0 and
      least_exploration 1, is LinUCB but for its first five slots.
    radial_scale: see `multitask_ts`.
    caution: see `multitask_ts`.

  Raises:
    ValueError: if a name is unknown, a number is out of range, or the state
      would be too large.
  """
  if features is None:
    few = num_experts <= polynomial.MOST_EXPERTS_OF_PRODUCTS
    features = "quadratic" if few else "fourier"
  check_choice("features", features, FEATURES)
  # As those of `multitask_ts`, slopes shrink with more than 8 experts.
  narrow = narrowing(num_experts)
  if regularisation is None:
    regularisation = 0.001 / narrow
  phi = polynomial.fixed_features(
    num_experts,
    quadratic=features == "quadratic",
    radial=radial_scale,
    num_fourier=_NUM_FOURIER if features == "fourier" else 0,
    length_scale=_LENGTH_SCALE,
    scales=(constant_scale, narrow, 1.0, narrow**2),
  )
  model = linear_model(
    phi,
    num_tasks=num_tasks,
    exploration=exploration,
    regularisation=regularisation,
    rule=rule,
  )
  model = conservative(
    model,
    LinearParts(
      phi, Partial(_mix), Partial(coefficients), Partial(deviation_of_sums)
    ),
    with_defaults(
      Caution(concavity, least_exploration, allowance, caution), num_experts
    ),
    num_tasks=num_tasks,
  )
  bandit = model_ascent(
    model, num_experts=num_experts, num_candidates=num_candidates
  )
  return check_state_size(
    bandit,
    "choose features='fourier' or 'linear', got "
    f"features={features!r}, num_experts={num_experts}, num_tasks={num_tasks}",
  )


@ranges.checked
def lin_ts(
  *,
  num_experts: AtLeastTwo,
  num_tasks: Count,
  features: str | None = None,
  exploration: NonNegative = 0.6,
  regularisation: Positive = 0.01,
  constant_scale: Positive = 1.0,
  num_candidates: Whole = 32,
  concavity: NonNegative = 20.0,
  least_exploration: Share = 0.2,
  allowance: PositiveOrInf | None = None,
  caution: NonNegative | None = None,
  radial_scale: NonNegative = 3.0,
) -> Bandit:
  """LinTS: `lin_ucb` with a draw of the posterior in place of its spread.

  Args:
    num_experts: E.
    num_tasks: V.
    features: of the weights, see `lin_ucb`.
    exploration: factor of the draw's deviation from the mean.
    regularisation: of the ridge regression, see `lin_ucb`.
    constant_scale: of the constant feature, see `lin_ucb`.
    num_candidates: fresh starts of the ascent, see `lin_ucb`.
    concavity: of the prior mean, see `multitask_ts`.
    least_exploration: see `multitask_ts`.
    allowance: see `multitask_ts`.
    radial_scale: see `multitask_ts`.
    caution: see `multitask_ts`.

  Raises:
    ValueError: as `lin_ucb`.
  """
  return lin_ucb(
    num_experts=num_experts,
    num_tasks=num_tasks,
    rule="thompson",
    features=features,
    exploration=exploration,
    regularisation=regularisation,
    constant_scale=constant_scale,
    num_candidates=num_candidates,
    concavity=concavity,
    least_exploration=least_exploration,
    allowance=allowance,
    radial_scale=radial_scale,
    caution=caution,
  )
