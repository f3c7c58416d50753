"""Bandits on a fixed set of arms: their statistics and their common parts.

An arm is a merge that is known beforehand: one expert alone, the plain
average, or weights given by the user. Because the task mix is visible and
rewards come per task, statistics are kept per arm and task by default, and an
arm is scored by psi . mean [R]: a slot then says something about the arm under
every other mix. With `context="slot"` only the slot's psi . r is kept, as in
the context-free algorithms. Letters: N arms, V tasks, E experts, W columns of
the statistics (V per task, 1 per slot).
"""

from collections.abc import Callable
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from tanbr_jax.bandits import reward_model
from tanbr_jax.bandits.arms.slot_reward import (
  RewardRange,
  make_range,
  slot_reward,
  widen,
)
from tanbr_jax.bandits.base import (
  Bandit,
  Context,
  Decision,
  Feedback,
  begin,
  check_at_least,
)
from tanbr_jax.bandits.reward_model import RewardScale
from tanbr_jax.bandits.wrappers.standardised import standardised
from tanbr_jax.checks.names import check_choice
from tanbr_jax.simplex.points import check_simplex

CONTEXTS = ("per_task", "slot")


class ArmStatistics(NamedTuple):
  """Observations of every arm, summed up.

  Attributes:
    visits: [N] int32, slots that an arm was played in and something was seen.
    count: [N, W] float32, requests (per task) or slots behind each mean.
    mean: [N, W] float32.
    squares: [] float32, sum over all arms and columns of the squared
      deviations from their mean, times the counts: (observations - means)
      s^2 in expectation, where s^2 is the variance of one request's reward.
    freedom: [] float32, observations minus means.
    scale: mean and spread of all rewards, whatever the arm.
    bounds: range of all rewards.
  """

  visits: jax.Array
  count: jax.Array
  mean: jax.Array
  squares: jax.Array
  freedom: jax.Array
  scale: RewardScale
  bounds: RewardRange


# choose(key, statistics, mix [W]) -> (arm [] int32, aux).
Choose = Callable[
  [jax.Array, ArmStatistics, jax.Array], tuple[jax.Array, dict[str, jax.Array]]
]


def make_arms(num_experts: int, arms: chex.Array | None) -> jax.Array:
  """Returns [N, E]: the E vertices, the uniform merge, and `arms`.

  Args:
    num_experts: E.
    arms: [A, E] further merges on the simplex, or None.

  Raises:
    ValueError: if `arms` has another shape or is off the simplex.
  """
  check_at_least("num_experts", num_experts, 2)
  standard = np.concatenate(
    [np.eye(num_experts), np.full((1, num_experts), 1 / num_experts)]
  )
  if arms is None:
    return jnp.asarray(standard, jnp.float32)
  if np.ndim(arms) != 2 or np.shape(arms)[1] != num_experts:
    raise ValueError(
      "arms must be [A, num_experts], got "
      f"arms.shape={np.shape(arms)}, num_experts={num_experts}"
    )
  extra = check_simplex("arms", arms)
  return jnp.concatenate([jnp.asarray(standard, jnp.float32), extra])


def pooled_mean(statistics: ArmStatistics) -> jax.Array:
  """Returns [1, W] every column's mean over all arms; 0 at first."""
  count = statistics.count
  total = jnp.sum(count, axis=0, keepdims=True)
  pooled = jnp.sum(count * statistics.mean, axis=0, keepdims=True)
  return pooled / jnp.maximum(total, 1.0)


def neutral_means(statistics: ArmStatistics) -> jax.Array:
  """Returns [N, W] means, the pooled mean where an arm was not seen."""
  return jnp.where(
    statistics.count > 0, statistics.mean, pooled_mean(statistics)
  )


def _mix_per_task(task_mix):
  return task_mix


def _observe_per_task(task_mix, feedback):
  del task_mix
  return reward_model.observed(feedback)


def _mix_per_slot(task_mix):
  return jnp.ones(1, task_mix.dtype)


def _observe_per_slot(task_mix, feedback):
  slot = slot_reward(task_mix, feedback)
  return slot.value[None], slot.seen[None].astype(jnp.float32)


_VIEWS = {
  "per_task": (Partial(_mix_per_task), Partial(_observe_per_task)),
  "slot": (Partial(_mix_per_slot), Partial(_observe_per_slot)),
}


def _select(
  choose: Choose, view, arms, key, statistics, context: Context
) -> Decision:
  arm, aux = choose(key, statistics, view(context.task_mix))
  return Decision(arms[arm], {"arm": arm, **aux})


def _update(
  observe, key, statistics, context: Context, decision, feedback: Feedback
) -> ArmStatistics:
  del key
  reward, count = observe(context.task_mix, feedback)
  arm = decision.aux["arm"]
  seen = count > 0
  before, old = statistics.count[arm], statistics.mean[arm]
  rate = count / jnp.maximum(before + count, 1.0)
  new = old + rate * (reward - old)
  again = seen & (before > 0)
  added = jnp.where(again, count * (reward - old) * (reward - new), 0.0)
  return ArmStatistics(
    visits=statistics.visits.at[arm].add(jnp.any(seen).astype(jnp.int32)),
    count=statistics.count.at[arm].add(count),
    mean=statistics.mean.at[arm].set(new),
    squares=statistics.squares + jnp.sum(added),
    freedom=statistics.freedom + jnp.sum(again.astype(jnp.float32)),
    scale=reward_model.update_scale(statistics.scale, reward, count),
    bounds=widen(statistics.bounds, reward, seen),
  )


def fixed_arms(
  choose: Choose,
  *,
  num_experts: int,
  num_tasks: int,
  arms: chex.Array | None = None,
  context: str = "per_task",
  bounds: tuple[float, float] | None = None,
) -> Bandit:
  """A bandit that picks one of N merges by a rule on their statistics.

  Args:
    choose: the rule, a `Partial`.
    num_experts: E.
    num_tasks: V.
    arms: [A, E] static merges besides the vertices and the uniform one.
    context: "per_task" or "slot".
    bounds: (lowest, highest) reward; None for what was seen so far.

  Raises:
    ValueError: if the arms are off the simplex, the context is not known, the
      bounds are not in order, or a size is too small.
  """
  check_choice("context", context, CONTEXTS)
  check_at_least("num_tasks", num_tasks, 1)
  arms = make_arms(num_experts, arms)
  num_columns = num_tasks if context == "per_task" else 1
  zeros = jnp.zeros((arms.shape[0], num_columns), jnp.float32)
  start = ArmStatistics(
    visits=jnp.zeros(arms.shape[0], jnp.int32),
    count=zeros,
    mean=zeros,
    squares=jnp.float32(0),
    freedom=jnp.float32(0),
    scale=reward_model.init_scale(),
    bounds=make_range(None if bounds is None else (0.0, 1.0)),
  )
  view, observe = _VIEWS[context]
  bandit = Bandit(
    Partial(begin, start),
    Partial(_select, choose, view, arms),
    Partial(_update, observe),
  )
  return standardised(bandit, reward_range=bounds)
