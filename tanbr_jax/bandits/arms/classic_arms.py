"""The classic stochastic bandits on a fixed set of merges.

`ucb1` and `epsilon_greedy` (Auer, Cesa-Bianchi and Fischer, "Finite-time
analysis of the multiarmed bandit problem", Machine Learning 2002) and
`thompson` (Thompson 1933; Gaussian rewards as in Agrawal and Goyal 2013). The
papers have one reward a round; what follows from keeping a mean for every task
is ours, marked [R]. Letters: N arms, V tasks, E experts, W columns of the
statistics (V per task, 1 per slot).
"""

import chex
import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from tanbr_jax.bandits.arms.fixed_arms import (
  ArmStatistics,
  fixed_arms,
  neutral_means,
  pooled_mean,
)
from tanbr_jax.bandits.arms.slot_reward import width
from tanbr_jax.bandits.base import Bandit
from tanbr_jax.bandits.reward_model import spread
from tanbr_jax.checks import ranges
from tanbr_jax.checks.ranges import (
  AtLeastTwo,
  Count,
  NonNegative,
  Positive,
  PositiveOrInf,
  Real,
  Share,
)


def _num_rounds(statistics: ArmStatistics) -> jax.Array:
  return jnp.sum(statistics.visits).astype(jnp.float32)


def _choose_ucb1(exploration, key, statistics: ArmStatistics, mix):
  del key
  mean = neutral_means(statistics) @ mix
  inverse_count = (1 / jnp.maximum(statistics.count, 1.0)) @ mix**2
  log_rounds = jnp.log(jnp.maximum(_num_rounds(statistics), 1.0))
  bonus = exploration * width(statistics.bounds)
  bonus = bonus * jnp.sqrt(2 * log_rounds * inverse_count)
  score = jnp.where(statistics.visits == 0, jnp.inf, mean + bonus)
  arm = jnp.argmax(score).astype(jnp.int32)
  return arm, {"predicted_reward": mean[arm], "exploration_bonus": bonus[arm]}


@ranges.checked
def ucb1(
  *,
  num_experts: AtLeastTwo,
  num_tasks: Count,
  arms: chex.Array | None = None,
  context: str = "per_task",
  exploration: NonNegative = 1.0,
  reward_range: tuple[Real, Real] | None = None,
) -> Bandit:
  """UCB1 (Auer et al. 2002): every arm once, then the largest upper bound.

  The bound is psi . mean_n + c w sqrt(2 log t sum_v psi_v^2 / count_nv), w the
  width of the rewards' range: Hoeffding's for the psi-weighted sum of V means
  [R], and UCB1's own for V = 1, c = 1. A pair (n, v) that was never seen
  counts as one observation of task v's mean over all arms [R].

  Args:
    num_experts: E.
    num_tasks: V.
    arms: [A, E] static merges besides the vertices and the uniform one.
    context: "per_task" or "slot", see `fixed_arms`.
    exploration: c; 1 is the paper's, for noise as wide as the range; less
      serves where the noise is smaller.
    reward_range: (lowest, highest) reward; None for what was seen so far [R].

  Raises:
    ValueError: if an argument is out of range.
  """
  return fixed_arms(
    Partial(_choose_ucb1, jnp.float32(exploration)),
    num_experts=num_experts,
    num_tasks=num_tasks,
    arms=arms,
    context=context,
    bounds=reward_range,
  )


def _choose_epsilon_greedy(schedule, key, statistics: ArmStatistics, mix):
  epsilon, decay_rounds = schedule
  explore_key, arm_key = jax.random.split(key)
  mean = neutral_means(statistics) @ mix
  rounds = jnp.maximum(_num_rounds(statistics), 1.0)
  probability = epsilon * jnp.minimum(1.0, decay_rounds / rounds)
  explores = jax.random.bernoulli(explore_key, probability)
  any_arm = jax.random.randint(arm_key, (), 0, mean.shape[0], jnp.int32)
  score = jnp.where(statistics.visits == 0, jnp.inf, mean)
  arm = jnp.where(explores, any_arm, jnp.argmax(score).astype(jnp.int32))
  return arm, {"predicted_reward": mean[arm], "epsilon": probability}


@ranges.checked
def epsilon_greedy(
  *,
  num_experts: AtLeastTwo,
  num_tasks: Count,
  arms: chex.Array | None = None,
  context: str = "per_task",
  epsilon: Share = 1.0,
  decay_rounds: PositiveOrInf = 10.0,
) -> Bandit:
  """Epsilon-greedy: a random arm with probability epsilon_t, else the best.

  epsilon_t = epsilon min(1, decay_rounds / t). With epsilon = 1 and
  decay_rounds = c N / d^2 this is epsilon_n-greedy of Auer et al. 2002; with
  decay_rounds = inf it does not decay. The best arm is one that was not played
  yet, else the one of largest psi . mean; an arm's mean of a task that it never
  met is that task's mean over all arms [R].

  Args:
    num_experts: E.
    num_tasks: V.
    arms: [A, E] static merges besides the vertices and the uniform one.
    context: "per_task" or "slot", see `fixed_arms`.
    epsilon: in [0, 1], the probability of the first rounds.
    decay_rounds: rounds after which it decays as 1 / t, may be infinite.

  Raises:
    ValueError: if an argument is out of range.
  """
  schedule = (jnp.float32(epsilon), jnp.float32(decay_rounds))
  return fixed_arms(
    Partial(_choose_epsilon_greedy, schedule),
    num_experts=num_experts,
    num_tasks=num_tasks,
    arms=arms,
    context=context,
  )


def noise_variance(statistics: ArmStatistics) -> jax.Array:
  """Returns s^2: pooled within arms, with one observation of the spread."""
  prior = spread(statistics.scale) ** 2
  return (statistics.squares + prior) / (statistics.freedom + 1)


def arm_posterior(
  statistics: ArmStatistics, prior_scale: chex.Numeric
) -> tuple[jax.Array, jax.Array]:
  """Returns the posterior means and variances [N, W] of the arms' rewards."""
  prior_variance = (prior_scale * spread(statistics.scale)) ** 2
  precision = 1 / prior_variance + statistics.count / noise_variance(statistics)
  gain = statistics.count / (noise_variance(statistics) * precision)
  prior_mean = pooled_mean(statistics)
  return prior_mean + gain * (statistics.mean - prior_mean), 1 / precision


def _choose_thompson(numbers, key, statistics: ArmStatistics, mix):
  prior_scale, exploration = numbers
  means, variances = arm_posterior(statistics, prior_scale)
  mean = means @ mix
  # Tasks are independent: one draw of the weighted sum is enough.
  deviation = exploration * jnp.sqrt(variances @ mix**2)
  bonus = deviation * jax.random.normal(key, mean.shape, jnp.float32)
  arm = jnp.argmax(mean + bonus).astype(jnp.int32)
  return arm, {"predicted_reward": mean[arm], "exploration_bonus": bonus[arm]}


@ranges.checked
def thompson(
  *,
  num_experts: AtLeastTwo,
  num_tasks: Count,
  arms: chex.Array | None = None,
  context: str = "per_task",
  prior_scale: Positive = 1.0,
  exploration: NonNegative = 1.0,
) -> Bandit:
  """Thompson sampling with Gaussian rewards of unknown mean.

  Reward of arm n on task v: N(m_nv, s^2 / count), m_nv ~ N(m_v, (k S)^2), with
  the conjugate posterior; each round one draw of psi . m_n an arm. [R]: m_v is
  the task's mean over all arms and S the spread of all rewards so far, and s^2
  is pooled over all arms and tasks (empirical Bayes), where the textbook has
  them given.

  Args:
    num_experts: E.
    num_tasks: V.
    arms: [A, E] static merges besides the vertices and the uniform one.
    context: "per_task" or "slot", see `fixed_arms`.
    prior_scale: k, the prior's standard deviation over the rewards' spread.
    exploration: factor of the posterior's standard deviation; 1 is exact.

  Raises:
    ValueError: if an argument is out of range.
  """
  numbers = (jnp.float32(prior_scale), jnp.float32(exploration))
  return fixed_arms(
    Partial(_choose_thompson, numbers),
    num_experts=num_experts,
    num_tasks=num_tasks,
    arms=arms,
    context=context,
  )
