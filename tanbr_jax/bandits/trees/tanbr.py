"""Tanbr: an optimistic bandit on a binary tree over the merge weights.

Han, Liu, Zhou, Dai, Lui, "Faster, Smaller, and Smarter: Task-Aware Expert
Merging for Online MoE Inference", arXiv 2509.19781. There is no public code;
what the paper does not state is a reconstruction, marked [R].

A round: every leaf of the tree offers one weight vector; a reward model scores
each with psi . f(x) plus an exploration bonus; the best is played, or climbed
from; the leaf that holds the played weights is counted, and splits in two once
its count reaches tau_h (`tree_growth`). `tanbr_paper` is the paper's, `tanbr`
the best that we found. Letters: V tasks, E experts, M tree capacity.
"""

from jax.tree_util import Partial

from tanbr_jax import partition as partitions
from tanbr_jax.bandits import candidates
from tanbr_jax.bandits.base import Bandit, Needs
from tanbr_jax.bandits.linear.multitask_model import multitask_model
from tanbr_jax.bandits.model_bandit import climb, highest, model_bandit
from tanbr_jax.bandits.neural.neural_learner import Learner, make_rates
from tanbr_jax.bandits.neural.neural_model import Numbers, neural_model
from tanbr_jax.bandits.neural.neural_training import ADAM
from tanbr_jax.checks import ranges
from tanbr_jax.checks.ranges import (
  AtLeastTwo,
  Chance,
  Count,
  Inner,
  NonNegative,
  Positive,
  PositiveOrInf,
  Share,
  Whole,
)
from tanbr_jax.partition import Partition
from tanbr_jax.simplex.ascent import Ascent

# [R] The last slots that the paper's network is trained on.
REPLAY_CAPACITY = 4096


def _partition(
  cells: str, num_experts: int, capacity: int, budget: int | None = None
) -> Partition:
  if cells not in ("box", "simplex"):
    raise ValueError(f"cells must be 'box' or 'simplex', got cells={cells!r}")
  if cells == "box":
    return partitions.box(
      num_experts=num_experts, capacity=capacity, budget=budget
    )
  if budget not in (None, num_experts):
    raise ValueError(
      "a budget other than num_experts needs cells='box', got "
      f"budget={budget}, num_experts={num_experts}"
    )
  return partitions.simplex(num_experts=num_experts, capacity=capacity)


@ranges.checked
def tanbr(
  *,
  num_experts: AtLeastTwo,
  num_tasks: Count,
  cells: str = "simplex",
  capacity: Count = 255,
  rho: Inner = 0.9,
  split_scale: Positive = 1.0,
  num_starts: Count = 4,
  num_ascent_steps: Whole = 12,
  num_fresh: Whole = 32,
  exploration: NonNegative = 0.7,
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
  """Tanbr on a Bayesian model of the rewards, with ascent: our form of it.

  The model is that of `multitask_ts`; the defaults are the best that we found
  (configs/regret/tune.py).

  Args:
    num_experts: E.
    num_tasks: V.
    cells: "simplex" (no infeasible cell) or "box" (the paper's [0,1]^E).
    capacity: M, nodes that the tree may hold, leaves included.
    rho: how fast cells shrink with depth, in (0, 1).
    split_scale: c^2 log(1 / delta) / nu^2, the visits that split the root.
    num_starts: candidates from which the score is ascended.
    num_ascent_steps: ascent steps; 0 plays the best candidate.
    num_fresh: fresh Dirichlet(1/2) draws that join the leaves as candidates,
      as many as the tree has splits at first, num_fresh in the end; 0 where
      there is no ascent.
    exploration: beta, factor of the posterior draw's deviation from the mean.
    num_fourier: random Fourier features.
    length_scale: of the Fourier features, in units of the weights.
    task_precision: first guess of the noise's variance over that of a
      coefficient of a task's own part.
    common_precision: the same of the common part.
    prior_strength: pseudo-counts of the first guesses; infinity keeps them.
    forgetting: factor of what was learnt, each slot.
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
    A `Bandit`; its decisions' aux holds leaf, depth, max_depth, num_leaves,
    tree_full, predicted_reward and exploration_bonus, all scalars.

  Raises:
    ValueError: if a choice is not known or a number out of range.
  """
  if num_fresh and not num_ascent_steps:
    raise ValueError(
      "num_fresh must be 0 without an ascent, got "
      f"num_fresh={num_fresh}, num_ascent_steps={num_ascent_steps}"
    )
  model = multitask_model(
    num_experts=num_experts,
    num_tasks=num_tasks,
    exploration=exploration,
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
  leaves = candidates.leaves(
    _partition(cells, num_experts, capacity),
    num_experts=num_experts,
    rho=rho,
    split_scale=split_scale,
    num_fresh=num_fresh,
  )
  ascent = Ascent(
    num_starts=min(num_starts, capacity), num_steps=num_ascent_steps
  )
  bandit = model_bandit(model, leaves, Partial(climb, ascent))
  return bandit._replace(needs=Needs(("gradient",) if gradients else ()))


@ranges.checked
def tanbr_paper(
  *,
  num_experts: AtLeastTwo,
  num_tasks: Count,
  cells: str = "box",
  budget: Count | None = None,
  capacity: Count = 1023,
  rho: Inner = 0.5,
  split_scale: Positive = 1.0,
  exploration: NonNegative = 1.0,
  regularisation: Positive = 1.0,
  ridge: NonNegative = 1.0,
  learning_rate: NonNegative = 1e-2,
  hidden: tuple[Count, ...] = (64, 64),
  confidence: str = "last_layer",
  num_steps: Count = 2,
) -> Bandit:
  """Tanbr as in arXiv 2509.19781: the best leaf's own weights are played.

  The paper's choices, kept where they lose. Stated: boxes, one root, two
  hidden layers of 64, lambda = 1, gamma = 1. [R]: every other default,
  last-layer confidence, and rewards standardised.

  Args:
    num_experts: E.
    num_tasks: V.
    cells: "box" (the paper's [0,1]^E) or "simplex" (no infeasible cell).
    budget: B, the most non-zero weights (boxes only); None for E.
    capacity: M, nodes that the tree may hold, leaves included.
    rho: how fast cells shrink with depth, in (0, 1).
    split_scale: c^2 log(1 / delta) / nu^2, the visits that split the root.
    exploration: gamma, factor of the width in units of the rewards' spread.
    regularisation: lambda of the confidence matrix.
    ridge: pull of the network to its initial parameters.
    learning_rate: of the network's Adam.
    hidden: widths of the network's hidden layers.
    confidence: "last_layer", "diagonal" or "full": the gradient features of
      the confidence matrix.
    num_steps: J, gradient steps of the network a round.

  Returns:
    A `Bandit`; its decisions' aux is that of `tanbr`.

  Raises:
    ValueError: if a choice is not known or a number out of range.
  """
  learner = Learner(
    ADAM, num_experts, num_tasks, tuple(hidden), num_steps, REPLAY_CAPACITY
  )
  numbers = Numbers(
    exploration, regularisation, make_rates(learning_rate, ridge)
  )
  model = neural_model(learner, numbers, confidence=confidence)
  leaves = candidates.leaves(
    _partition(cells, num_experts, capacity, budget),
    num_experts=num_experts,
    rho=rho,
    split_scale=split_scale,
  )
  return model_bandit(model, leaves, Partial(highest))
