"""Task mixes that stay for a while and then jump.

Letters: V tasks, P phases.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from tanbr_jax.bandits.base import Shape
from tanbr_jax.checks import ranges
from tanbr_jax.checks.ranges import AtLeastTwo, Chance, Count, Positive
from tanbr_jax.environments.mixes.base import MixProcess
from tanbr_jax.simplex.points import dirichlet


class PiecewiseState(NamedTuple):
  """State of `piecewise` and `abrupt`.

  Attributes:
    phases: [P, V] the mixes of the phases, drawn once in `init`.
    slot: [] int32, slots since the start; of `abrupt`, jumps.
  """

  phases: jax.Array
  slot: jax.Array


class BurstyState(NamedTuple):
  """State of `bursty`.

  Attributes:
    base: [V] the mix between bursts.
    task: [] int32, the task of the last burst.
    is_burst: [] bool, whether it lasts.
  """

  base: jax.Array
  task: jax.Array
  is_burst: jax.Array


@ranges.checked
def piecewise(
  *,
  num_tasks: AtLeastTwo,
  length: Count = 250,
  concentration: Positive = 0.25,
  num_phases: Count = 512,
) -> MixProcess:
  """A new Dirichlet(concentration) mix every `length` slots.

  All mixes are drawn in `init`, because a Dirichlet draw inside a scan costs
  more than the rest of a round; after `num_phases` phases they come again.

  Args:
    num_tasks: V.
    length: slots of a phase, >= 1.
    concentration: of the Dirichlet, small for concentrated mixes.
    num_phases: P, phases before the sequence repeats, >= 1.

  Returns:
    A `MixProcess` over `PiecewiseState`.

  Raises:
    ValueError: if an argument is out of range.
  """
  shape = Shape((num_phases, num_tasks))
  return MixProcess(
    Partial(_draw_phases, shape, jnp.float32(concentration)),
    Partial(_phase, jnp.int32(length)),
    Partial(_count_slot),
  )


@ranges.checked
def abrupt(
  *,
  num_tasks: AtLeastTwo,
  rate: Chance = 0.004,
  concentration: Positive = 0.25,
  num_phases: Count = 512,
) -> MixProcess:
  """A jump to a new Dirichlet(concentration) mix with chance `rate` a slot.

  A mix stays for a geometric number of slots, 1 / rate on average. As in
  `piecewise`, after `num_phases` mixes they come again.

  Args:
    num_tasks: V.
    rate: in (0, 1].
    concentration: of the Dirichlet, small for concentrated mixes.
    num_phases: P, mixes before the sequence repeats, >= 1.

  Returns:
    A `MixProcess` over `PiecewiseState`.

  Raises:
    ValueError: if an argument is out of range.
  """
  shape = Shape((num_phases, num_tasks))
  return MixProcess(
    Partial(_draw_phases, shape, jnp.float32(concentration)),
    Partial(_phase, jnp.int32(1)),
    Partial(_jump, jnp.float32(rate)),
  )


@ranges.checked
def bursty(
  *,
  num_tasks: AtLeastTwo,
  start: Chance = 0.02,
  stop: Chance = 0.1,
  strength: Chance = 0.9,
  concentration: Positive = 1.0,
) -> MixProcess:
  """A base mix, interrupted by bursts in which one task dominates.

  Bursts begin with chance `start` in a slot without and end with chance `stop`
  in a slot with one, hence start / (start + stop) of the slots have one. The
  task of a burst is uniform and has `strength` of the requests; the rest
  follow the base mix, Dirichlet(concentration), drawn in `init`.

  Args:
    num_tasks: V.
    start: in (0, 1].
    stop: in (0, 1].
    strength: in (0, 1].
    concentration: of the base mix.

  Returns:
    A `MixProcess` over `BurstyState`, which starts in its stationary law.

  Raises:
    ValueError: if an argument is out of range.
  """
  chances = jnp.float32(start), jnp.float32(stop)
  return MixProcess(
    Partial(
      _draw_base, Shape((num_tasks,)), jnp.float32(concentration), *chances
    ),
    Partial(_burst_mix, jnp.float32(strength)),
    Partial(_burst_step, *chances),
  )


def _draw_phases(
  shape: Shape, concentration: jax.Array, key: jax.Array
) -> PiecewiseState:
  phases = dirichlet(key, concentration, shape)
  return PiecewiseState(phases, jnp.int32(0))


def _phase(length: jax.Array, state: PiecewiseState) -> jax.Array:
  return state.phases[(state.slot // length) % state.phases.shape[0]]


def _count_slot(key: jax.Array, state: PiecewiseState) -> PiecewiseState:
  del key
  return state._replace(slot=state.slot + 1)


def _jump(
  rate: jax.Array, key: jax.Array, state: PiecewiseState
) -> PiecewiseState:
  jumps = jax.random.uniform(key, dtype=jnp.float32) < rate
  return state._replace(slot=state.slot + jumps.astype(jnp.int32))


def _draw_base(
  shape: Shape,
  concentration: jax.Array,
  start: jax.Array,
  stop: jax.Array,
  key: jax.Array,
) -> BurstyState:
  base_key, task_key, burst_key = jax.random.split(key, 3)
  return BurstyState(
    dirichlet(base_key, concentration, shape),
    jax.random.randint(task_key, (), 0, shape[0], jnp.int32),
    jax.random.uniform(burst_key, dtype=jnp.float32) < start / (start + stop),
  )


def _burst_mix(strength: jax.Array, state: BurstyState) -> jax.Array:
  share = jnp.where(state.is_burst, strength, 0.0)
  task = jax.nn.one_hot(state.task, state.base.shape[0], dtype=jnp.float32)
  return (1.0 - share) * state.base + share * task


def _burst_step(
  start: jax.Array, stop: jax.Array, key: jax.Array, state: BurstyState
) -> BurstyState:
  switch_key, task_key = jax.random.split(key)
  switches = jax.random.uniform(switch_key, dtype=jnp.float32) < jnp.where(
    state.is_burst, stop, start
  )
  begins = switches & ~state.is_burst
  drawn = jax.random.randint(task_key, (), 0, state.base.shape[0], jnp.int32)
  return state._replace(
    task=jnp.where(begins, drawn, state.task),
    is_burst=state.is_burst ^ switches,
  )
