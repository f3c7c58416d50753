"""Bandits that do not learn: what a learner has to beat, and the optimum.

Letters: V tasks, E experts.
"""

from collections.abc import Callable

import chex
import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from tanbr_jax.bandits.base import (
  Bandit,
  Context,
  Decision,
  Shape,
  begin,
)
from tanbr_jax.checks import ranges
from tanbr_jax.checks.ranges import AtLeastTwo, Count
from tanbr_jax.simplex.points import check_simplex, dirichlet_one


def _count(key, state, context, decision, feedback) -> jax.Array:
  del key, context, decision, feedback
  return state + jnp.int32(1)


def _control(play: Partial) -> Bandit:
  """A bandit whose state is the slots played, [] int32.

  An empty state could not be saved by Orbax.
  """
  return Bandit(Partial(begin, jnp.int32(0)), play, Partial(_count))


def _play(weights: chex.Array, key, state, context: Context) -> Decision:
  del key, state, context
  return Decision(weights, {})


def _play_random(shape: Shape, key, state, context) -> Decision:
  del state, context
  return Decision(dirichlet_one(key, shape), {})


def _play_table(table: chex.Array, key, state, context: Context) -> Decision:
  del key, state
  return Decision(context.task_mix @ table, {})


def _play_policy(policy: Callable, key, state, context: Context) -> Decision:
  del key, state
  return Decision(policy(context.task_mix), {})


@ranges.checked
def fixed(
  *,
  num_experts: AtLeastTwo,
  num_tasks: Count,
  weights: chex.Array | None = None,
) -> Bandit:
  """Plays the same weights in every slot (a static merge).

  Args:
    num_experts: E.
    num_tasks: V (not used: every constructor takes both).
    weights: [E] on the simplex; the uniform average when None.

  Raises:
    ValueError: if the weights are off the simplex or not E of them, E < 2 or
      V < 1.
  """
  if weights is None:
    weights = np.full(num_experts, 1 / num_experts)
  weights = check_simplex("weights", weights)
  if weights.shape != (num_experts,):
    raise ValueError(
      "weights must have one entry an expert, got "
      f"weights.shape={weights.shape}, num_experts={num_experts}"
    )
  return _control(Partial(_play, weights))


@ranges.checked
def uniform(*, num_experts: AtLeastTwo, num_tasks: Count) -> Bandit:
  """Plays the plain average of the experts in every slot.

  Args:
    num_experts: E.
    num_tasks: V (not used: every constructor takes both).

  Raises:
    ValueError: if E < 2 or V < 1.
  """
  return fixed(num_experts=num_experts, num_tasks=num_tasks)


@ranges.checked
def random(*, num_experts: AtLeastTwo, num_tasks: Count) -> Bandit:
  """Plays weights drawn uniformly from the simplex, anew in every slot.

  Args:
    num_experts: E.
    num_tasks: V (not used: every constructor takes both).

  Raises:
    ValueError: if E < 2 or V < 1.
  """
  play = Partial(_play_random, Shape((num_experts,)))
  return _control(play)


@ranges.checked
def follow_task_mix(
  *, num_experts: AtLeastTwo, num_tasks: Count, table: chex.Array | None = None
) -> Bandit:
  """Plays x = psi R, the mix pushed through a table of weights per task.

  Args:
    num_experts: E.
    num_tasks: V.
    table: [V, E], rows on the simplex, for instance how often a router sends
      each task's tokens to each expert; when None, task v gets expert v mod E.

  Raises:
    ValueError: if the table's rows are off the simplex or its shape is wrong,
      E < 2 or V < 1.
  """
  if table is None:
    table = np.eye(num_experts)[np.arange(num_tasks) % num_experts]
  table = check_simplex("table", table)
  if table.shape != (num_tasks, num_experts):
    raise ValueError(
      "table must be [num_tasks, num_experts], got "
      f"table.shape={table.shape}, num_tasks={num_tasks}, "
      f"num_experts={num_experts}"
    )
  return _control(Partial(_play_table, table))


@ranges.checked
def oracle(
  *,
  num_experts: AtLeastTwo,
  num_tasks: Count,
  policy: Callable[[jax.Array], jax.Array] | None = None,
) -> Bandit:
  """Plays `policy(task_mix)`: the best weights for the mix that is seen.

  Args:
    num_experts: E.
    num_tasks: V.
    policy: [V] -> [E], pure; a `jax.tree_util.Partial` when it carries arrays.
      When None, the policy of `follow_task_mix`'s default table.

  Raises:
    ValueError: if E < 2 or V < 1.
  """
  if policy is None:
    return follow_task_mix(num_experts=num_experts, num_tasks=num_tasks)
  policy = policy if isinstance(policy, Partial) else Partial(policy)
  return _control(Partial(_play_policy, policy))
