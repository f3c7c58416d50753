"""Multi-task Thompson sampling: the bandit that we would give a user.

No paper: ours. Every part of it is known (Thompson sampling of a Bayesian
linear model, Agrawal and Goyal 2013; random Fourier features, Rahimi and Recht
2007; evidence maximisation, MacKay 1992); put together [R]:

- the tasks' rewards are linear in quadratic and random Fourier features of the
  weights, with a part that all tasks have in common and one of each task's own;
- the prior scale of every group of features is learnt, so that features that a
  problem does not need stop being explored, and no scale has to be set;
- the prior mean falls away from the plain average, the bonus grows with the
  share of gains in what was played, and an account of both limits what is
  played (`conservative`), so that the learner does little worse than the plain
  average until it knows better;
- a draw of the posterior is a smooth function of the weights, which is
  maximised by gradient ascent on the simplex, near the weights played last at
  first and over all of the simplex later.

`tanbr` has the same model and begins the ascent at the
leaves of a tree. Letters: V tasks, E experts, P features.
"""

from tanbr_jax.bandits.base import Bandit, Needs
from tanbr_jax.bandits.linear.model_ascent import model_ascent
from tanbr_jax.bandits.linear.multitask_model import multitask_model
from tanbr_jax.checks import ranges
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


@ranges.checked
def multitask_ts(
  *,
  num_experts: AtLeastTwo,
  num_tasks: Count,
  num_candidates: Whole = 32,
  num_starts: Count = 4,
  num_ascent_steps: Whole = 12,
  candidate_growth: Positive = 0.1,
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
) -> Bandit:
  """Multi-task Thompson sampling with a learnt prior and ascent.

  Args:
    num_experts: E.
    num_tasks: V.
    num_candidates: fresh Dirichlet(1/2) starts a round, besides the vertices,
      the centre and the weights played last.
    num_starts: how many of the best candidates the ascent begins from.
    num_ascent_steps: 0 plays the best candidate.
    candidate_growth: candidates that each round adds to the weights played
      last, with which the first round begins; infinity allows all at once.
    exploration: beta, factor of the bonus.
    rule: "thompson" (a draw of the posterior) or "ucb" (its deviation).
    num_fourier: random Fourier features.
    length_scale: of the Fourier features, in units of the weights.
    task_precision: first guess of the noise's variance over that of a
      coefficient of a task's own part.
    common_precision: the same of the common part; infinity for tasks with
      nothing in common.
    prior_strength: pseudo-counts of the first guesses; infinity keeps them.
    forgetting: factor of what was learnt, each slot; below 1 for rewards that
      drift, 1 / (1 - forgetting) slots are then remembered.
    least_exploration: share of the exploration before anything was earned by
      it, see `earned_exploration`; 1 explores in full always.
    concavity: how steeply the prior mean falls away from the centre, in
      standard deviations of a request's noise, which the first slots tell, all
      of them at the centre (see `concave_prior`).
    linear_scale: prior standard deviation of the linear coefficients where that
      of a curvature is 1; None for 1 with up to 8 experts and 8 / E with more,
      so that a draw's slope shrinks as those of the experts' mean do.
    fourier_scale: that of the Fourier features' coefficients; None for half the
      square of the linear one's default, as few frequencies say little about
      many directions.
    allowance: what may be lost to the plain average in E slots, in units of the
      first slot's spread (see `conservative` and `standardised`); infinity for
      everything; None for infinity with up to 8 experts and .2 with more.
    caution: posterior standard deviations by which what was gained is taken to
      be less than its mean, in what can be afforded; None for 1 with up to 8
      experts and (8 / E)^2 with more.
    radial_scale: prior standard deviation of the one curvature that all
      directions share, where that of each is 1.
    gradients: whether the slots' gradients are learnt from too, as E - 1 more
      observations of the same model (see `gradient_model`), and needed.

  Returns:
    A `Bandit`; see `model_ascent` for its decisions' aux.

  Raises:
    ValueError: if a choice is not known or a number out of range.
  """
  model = multitask_model(
    num_experts=num_experts,
    num_tasks=num_tasks,
    exploration=exploration,
    rule=rule,
    num_fourier=num_fourier,
    length_scale=length_scale,
    task_precision=task_precision,
    common_precision=common_precision,
    prior_strength=prior_strength,
    forgetting=forgetting,
    least_exploration=least_exploration,
    concavity=concavity,
    linear_scale=linear_scale,
    fourier_scale=fourier_scale,
    allowance=allowance,
    radial_scale=radial_scale,
    caution=caution,
    gradients=gradients,
  )
  bandit = model_ascent(
    model,
    num_experts=num_experts,
    num_candidates=num_candidates,
    num_starts=num_starts,
    num_ascent_steps=num_ascent_steps,
    candidate_growth=candidate_growth,
  )
  return bandit._replace(needs=Needs(("gradient",) if gradients else ()))
