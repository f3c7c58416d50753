"""Task mixes that move a little in every slot.

Letters: V tasks, P phases.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.special
from jax.tree_util import Partial

from tanbr_jax.bandits.base import Shape
from tanbr_jax.checks import ranges
from tanbr_jax.checks.ranges import AtLeastTwo, Chance, Count, Positive
from tanbr_jax.environments.mixes.base import MixProcess
from tanbr_jax.simplex.points import dirichlet


class PeriodicState(NamedTuple):
  """State of `periodic`.

  Attributes:
    phases: [P, V] the mixes of the phases, drawn once in `init`.
    slot: [] int32, slots since the start of the period.
  """

  phases: jax.Array
  slot: jax.Array


@ranges.checked
def drift(
  *, num_tasks: AtLeastTwo, rate: Chance = 0.002, concentration: Positive = 0.25
) -> MixProcess:
  """A slow random walk: softmax of an Ornstein-Uhlenbeck process z [V].

  `z <- (1 - rate) z + scale sqrt(1 - (1 - rate)^2) N(0, I)`, started in its
  stationary law N(0, scale^2 I). `scale^2` is the variance of the logarithm
  of a Gamma(concentration) variable, trigamma(concentration): softmax of such
  logarithms is Dirichlet(concentration), hence the walk visits mixes about as
  concentrated as that.

  Args:
    num_tasks: V.
    rate: in (0, 1]; 1 / rate is the correlation time of z in slots.
    concentration: > 0, small for concentrated mixes.

  Returns:
    A `MixProcess` whose state is z.

  Raises:
    ValueError: if an argument is out of range.
  """
  scale = jnp.float32(np.sqrt(scipy.special.polygamma(1, concentration)))
  return MixProcess(
    Partial(_draw_logits, Shape((num_tasks,)), scale),
    Partial(jax.nn.softmax),
    Partial(_walk, jnp.float32(rate), scale),
  )


@ranges.checked
def periodic(
  *,
  num_tasks: AtLeastTwo,
  period: Count = 1000,
  concentration: Positive = 0.25,
  num_phases: AtLeastTwo = 4,
) -> MixProcess:
  """Seasons: a smooth cycle through a few Dirichlet(concentration) mixes.

  From one phase's mix to the next the share of the next grows as
  (1 - cos(pi f)) / 2, f from 0 to 1, so that the mix lingers at each phase.

  Args:
    num_tasks: V.
    period: slots after which everything comes again, at least `num_phases`.
    concentration: of the Dirichlet, small for concentrated mixes.
    num_phases: P >= 2.

  Returns:
    A `MixProcess` over `PeriodicState`.

  Raises:
    ValueError: if an argument is out of range.
  """
  if period < num_phases:
    raise ValueError(
      "period must be at least num_phases, got "
      f"num_phases={num_phases}, period={period}"
    )
  shape = Shape((num_phases, num_tasks))
  return MixProcess(
    Partial(_draw_seasons, shape, jnp.float32(concentration)),
    Partial(_season, jnp.int32(period)),
    Partial(_next_slot, jnp.int32(period)),
  )


def _draw_logits(shape: Shape, scale: jax.Array, key: jax.Array) -> jax.Array:
  return scale * jax.random.normal(key, shape, jnp.float32)


def _walk(
  rate: jax.Array, scale: jax.Array, key: jax.Array, logits: jax.Array
) -> jax.Array:
  keep = 1.0 - rate
  spread = scale * jnp.sqrt(rate * (1.0 + keep))
  return keep * logits + spread * jax.random.normal(
    key, logits.shape, jnp.float32
  )


def _draw_seasons(
  shape: Shape, concentration: jax.Array, key: jax.Array
) -> PeriodicState:
  return PeriodicState(dirichlet(key, concentration, shape), jnp.int32(0))


def _season(period: jax.Array, state: PeriodicState) -> jax.Array:
  num_phases = state.phases.shape[0]
  # In integers: slot num_phases / period in float32 would drift.
  position = state.slot * num_phases
  phase = position // period
  passed = (position % period).astype(jnp.float32) / period.astype(jnp.float32)
  share = 0.5 - 0.5 * jnp.cos(jnp.pi * passed)
  following = state.phases[(phase + 1) % num_phases]
  return (1.0 - share) * state.phases[phase] + share * following


def _next_slot(
  period: jax.Array, key: jax.Array, state: PeriodicState
) -> PeriodicState:
  del key
  return state._replace(slot=(state.slot + 1) % period)
