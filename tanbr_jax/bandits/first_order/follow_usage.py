"""Follows the router: weights as its usage of the experts was.

It is told what the served tokens' router would use, and no reward, no label and
no task mix, unlike `follow_task_mix`. Letters: E experts.
"""

from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from tanbr_jax.bandits.base import (
  Bandit,
  Context,
  Decision,
  Feedback,
  Needs,
  Shape,
  begin,
)
from tanbr_jax.checks import ranges
from tanbr_jax.checks.ranges import AtLeastTwo, Count, Decay

_MOST = 1e30


class UsageState(NamedTuple):
  """State of `follow_usage`.

  Attributes:
    usage: [E] float32 on the simplex, the moving average.
    num_slots: [] int32, slots whose usage was told.
  """

  usage: jax.Array
  num_slots: jax.Array


def _init(shape: Shape, key) -> UsageState:
  even = jnp.full(shape, 1 / shape[0], jnp.float32)
  return begin(UsageState(even, jnp.int32(0)), key)


def _select(key, state: UsageState, context: Context) -> Decision:
  del key, context
  return Decision(state.usage, {})


def _update(
  decay: chex.Numeric,
  key,
  state: UsageState,
  context: Context,
  decision: Decision,
  feedback: Feedback,
) -> UsageState:
  del key, context, decision
  if feedback.usage is None:
    return state
  usage = feedback.usage
  seen = jnp.all(jnp.isfinite(usage) & (usage >= 0)) & jnp.any(usage > 0)
  # Huge entries are cut and divided first, as their sum would overflow.
  usage = jnp.minimum(jnp.where(seen, usage, 1.0), _MOST)
  usage = usage / jnp.max(usage)
  usage = usage / jnp.sum(usage)
  # The first usage replaces the even start.
  kept = jnp.where(state.num_slots == 0, 0.0, decay)
  average = kept * state.usage + (1 - kept) * usage
  new = UsageState(average / jnp.sum(average), state.num_slots + jnp.int32(1))
  return jax.tree.map(lambda a, b: jnp.where(seen, a, b), new, state)


@ranges.checked
def follow_usage(
  *, num_experts: AtLeastTwo, num_tasks: Count, decay: Decay = 0.5
) -> Bandit:
  """Plays the moving average of the router's usage, the plain average at first.

    x <- decay x + (1 - decay) usage

  A slot without usage (zeros, or what is not finite) changes nothing. Weights
  by frequency of use are those of frequency-weighted merging (M-SMoE, Li et
  al., ICLR 2024); [R] here they follow the stream.

  Args:
    num_experts: E.
    num_tasks: V (not used: every constructor takes both).
    decay: in [0, 1).

  Raises:
    ValueError: if a number is out of range.
  """
  return Bandit(
    Partial(_init, Shape((num_experts,))),
    Partial(_select),
    Partial(_update, jnp.float32(decay)),
    Needs(("usage",)),
  )
