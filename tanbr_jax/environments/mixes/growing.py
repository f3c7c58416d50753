"""Task mixes to which new tasks come.

Letters: V tasks.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from tanbr_jax.checks import ranges
from tanbr_jax.checks.ranges import AtLeastTwo, Chance, Count, Positive
from tanbr_jax.environments.mixes.base import MixProcess
from tanbr_jax.environments.mixes.smooth import drift


class GrowingState(NamedTuple):
  """State of `growing`.

  Attributes:
    logits: [V] of all tasks, as in `drift`.
    slot: [] int32, slots since the start.
  """

  logits: jax.Array
  slot: jax.Array


@ranges.checked
def growing(
  *,
  num_tasks: AtLeastTwo,
  first: Count = 2,
  every: Count = 500,
  rate: Chance = 0.002,
  concentration: Positive = 0.25,
) -> MixProcess:
  """A drifting mix of a few tasks, which another one joins now and then.

  The mix is that of `drift` over the tasks that are there: task v from slot
  (v + 1 - first) every on, and the first ones from the start.

  Args:
    num_tasks: V, all that will ever come.
    first: tasks that are there from the start.
    every: slots from one new task to the next.
    rate: of `drift`.
    concentration: of `drift`.

  Returns:
    A `MixProcess` over `GrowingState`.

  Raises:
    ValueError: if an argument is out of range.
  """
  walk = drift(num_tasks=num_tasks, rate=rate, concentration=concentration)
  return MixProcess(
    Partial(_init, walk),
    Partial(_mix, jnp.int32(first), jnp.int32(every)),
    Partial(_step, walk),
  )


def _init(walk: MixProcess, key: jax.Array) -> GrowingState:
  return GrowingState(walk.init(key), jnp.int32(0))


def _mix(first: jax.Array, every: jax.Array, state: GrowingState) -> jax.Array:
  tasks = jnp.arange(state.logits.shape[0], dtype=jnp.int32)
  is_there = tasks < first + state.slot // every
  return jax.nn.softmax(jnp.where(is_there, state.logits, -jnp.inf))


def _step(
  walk: MixProcess, key: jax.Array, state: GrowingState
) -> GrowingState:
  return GrowingState(walk.step(key, state.logits), state.slot + 1)
