"""Linear bandits on polynomial features of the weights, with ascent.

LinUCB (Li et al. 2010) and LinTS (Agrawal and Goyal 2013) per task on features
of the merge weights, weighted by the task mix; the score is maximised by
gradient ascent on the simplex instead of over a finite set of arms [R].
Letters: V tasks, E experts.
"""

from tanbr_jax.bandits.base import Bandit
from tanbr_jax.bandits.linear.linear_model import linear_model
from tanbr_jax.bandits.linear.model_ascent import model_ascent
from tanbr_jax.checks import ranges
from tanbr_jax.checks.ranges import (
  AtLeastTwo,
  Count,
  NonNegative,
  Positive,
  Whole,
)
from tanbr_jax.regression import polynomial


@ranges.checked
def lin_ucb(
  *,
  num_experts: AtLeastTwo,
  num_tasks: Count,
  rule: str = "ucb",
  features: str = "quadratic",
  exploration: NonNegative = 2.0,
  regularisation: Positive = 0.001,
  constant_scale: Positive = 1.0,
  num_candidates: Whole = 32,
) -> Bandit:
  """LinUCB on features of the merge weights, with ascent of the score.

  Args:
    num_experts: E.
    num_tasks: V.
    rule: "ucb"; "thompson" is `lin_ts`, see `linear_model`.
    features: "quadratic" (E (E + 1) / 2 of them) or "linear" (E).
    exploration: beta, the factor of the posterior's standard deviation.
    regularisation: lambda, the noise's variance over the coefficients'.
    constant_scale: prior standard deviation of the rewards' constant part,
      where that of the others is 1; large where rewards lie far from zero.
    num_candidates: fresh Dirichlet(1/2) starts a round, besides the vertices,
      the centre and the weights played last.

  Raises:
    ValueError: if a name is unknown or a number is out of range.
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
    rule=rule,
  )
  return model_ascent(
    model, num_experts=num_experts, num_candidates=num_candidates
  )


@ranges.checked
def lin_ts(
  *,
  num_experts: AtLeastTwo,
  num_tasks: Count,
  features: str = "quadratic",
  exploration: NonNegative = 0.6,
  regularisation: Positive = 0.01,
  constant_scale: Positive = 1.0,
  num_candidates: Whole = 32,
) -> Bandit:
  """LinTS: `lin_ucb` with a draw of the posterior in place of its spread.

  Args:
    num_experts: E.
    num_tasks: V.
    features: "quadratic" or "linear", of the weights.
    exploration: factor of the draw's deviation from the mean.
    regularisation: of the ridge regression, see `lin_ucb`.
    constant_scale: of the constant feature, see `lin_ucb`.
    num_candidates: fresh starts of the ascent, see `lin_ucb`.

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
  )
