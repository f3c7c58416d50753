"""GP-UCB on merge weights with the task mix as its context.

Srinivas, Krause, Kakade and Seeger, "Gaussian process optimization in the
bandit setting: no regret and experimental design", ICML 2010; with contexts
Krause and Ong, "Contextual Gaussian process bandit optimization", NeurIPS
2011. Letters: V tasks, E experts, M slots kept.
"""

from tanbr_jax.bandits.base import Bandit
from tanbr_jax.bandits.linear.gp_model import GpNumbers, gp_model
from tanbr_jax.bandits.linear.model_ascent import model_ascent
from tanbr_jax.checks import ranges
from tanbr_jax.checks.ranges import (
  AtLeastTwo,
  Count,
  NonNegative,
  Positive,
  Whole,
)


@ranges.checked
def gp_ucb(
  *,
  num_experts: AtLeastTwo,
  num_tasks: Count,
  capacity: AtLeastTwo = 256,
  mix_kernel: str = "linear",
  exploration: NonNegative = 0.5,
  prior_scale: Positive = 4.0,
  noise: Positive = 0.1,
  length_scale: Positive = 1.0,
  mix_length_scale: Positive = 0.5,
  num_candidates: Whole = 32,
) -> Bandit:
  """GP-UCB: climbs the posterior's mean plus beta of its standard deviation.

  The bandit learns one number a slot, psi . r, from the last M slots (see
  `gp_model`); `lin_ucb` learns from every task's reward. beta is constant [R],
  where the theorem's grows with log t; the score is ascended on the simplex
  [R].

  Args:
    num_experts: E.
    num_tasks: V.
    capacity: M >= 2; a round costs O(M^2).
    mix_kernel: "linear" (independent tasks) or "squared_exponential".
    exploration: beta.
    prior_scale: s, prior standard deviation of a task's reward in units of the
      rewards' spread.
    noise: standard deviation of one request's reward in the same units.
    length_scale: l of the weights' squared-exponential kernel.
    mix_length_scale: that of the mix, if its kernel has one.
    num_candidates: fresh Dirichlet(1/2) starts a round, besides the vertices,
      the centre and the weights played last.

  Raises:
    ValueError: if an argument is out of range.
  """
  model = gp_model(
    num_experts=num_experts,
    num_tasks=num_tasks,
    capacity=capacity,
    mix_kernel=mix_kernel,
    numbers=GpNumbers(
      exploration, prior_scale, noise, length_scale, mix_length_scale
    ),
  )
  return model_ascent(
    model, num_experts=num_experts, num_candidates=num_candidates
  )
