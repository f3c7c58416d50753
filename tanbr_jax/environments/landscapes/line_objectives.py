"""Classic objectives of one variable, carried onto the simplex.

The formulas are those of PyXAB (Li et al. 2023), where their domain is [0, 1].
Here y in [0, 1] is the image of the weights (see `image`), uniform weights are
at 1/2, and task v has the objective moved so that its peak is at
t_v ~ U(.05, .95) [R]. Peaks are rounded off and jumps become ramps [R], or else
float32 weights could not come within 1e-4 of the optimum: beside the double
sine's peak an error of 6e-8 in y costs .006. Letters: V tasks, E experts.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from tanbr_jax.checks import ranges
from tanbr_jax.checks.ranges import AtLeastTwo, Count, Positive
from tanbr_jax.environments.landscapes.family import Family
from tanbr_jax.environments.landscapes.image_search import (
  Objective,
  image_family,
)

# Where a distance is rounded off: a value at which the oscillation of the
# objective is at its top, so that the peak stays what it was to 1e-5.
_SINE_ROUNDING = 2.0**-9.5
_DIFFICULT_ROUNDING = float(np.exp(-7.25))
_GARLAND_ROUNDING = 2.0**-10
# Half the width of a ramp of the difficult function, in periods of log |y|.
_HALF_RAMP = 0.016
# rho_1 = .3 and rho_2 = .8 of the double sine.
_NARROW, _WIDE = -float(np.log2(0.3)), -float(np.log2(0.8))
_GARLAND_PEAK = float(np.pi / 6)


class LineTasks(NamedTuple):
  """Parameters of an objective.

  Attributes:
    peaks: [V] t_v.
    scale: [] factor of the reward.
  """

  peaks: jax.Array
  scale: jax.Array


@ranges.checked
def garland(
  *, num_experts: AtLeastTwo, num_tasks: Count, scale: Positive = 0.5
) -> Family:
  """Many cusps: z (1 - z) (4 - sqrt|sin 60 z|), z = y - t_v + pi / 6.

  Args:
    num_experts: E.
    num_tasks: V.
    scale: factor of the reward, which peaks at .998 scale.

  Returns:
    A `Family`.
  """
  cusps = np.pi / 60 * np.arange(-18, 19)
  return _line_family(
    _garland_value, cusps, scale, num_experts=num_experts, num_tasks=num_tasks
  )


@ranges.checked
def double_sine(
  *, num_experts: AtLeastTwo, num_tasks: Count, scale: Positive = 0.5
) -> Family:
  """s(u) (u^a - u^b) - u^a, u = 2 |y - t_v|, s(u) = (1 + sin(pi log2 u)) / 2.

  a = -log2 .8 and b = -log2 .3: the peak is sharper from below than from
  above, and there are infinitely many local ones around it.

  Args:
    num_experts: E.
    num_tasks: V.
    scale: factor of the reward, which peaks at 0.

  Returns:
    A `Family`.
  """
  rings = 2.0 ** (-np.arange(96) / 8)
  return _line_family(
    _double_sine_value,
    np.concatenate([-rings, [0.0], rings]),
    scale,
    num_experts=num_experts,
    num_tasks=num_tasks,
  )


@ranges.checked
def difficult(
  *, num_experts: AtLeastTwo, num_tasks: Count, scale: Positive = 0.5
) -> Family:
  """-d^2 where log d has a fraction above 1/2, else -sqrt d; d = |y - t_v|.

  Args:
    num_experts: E.
    num_tasks: V.
    scale: factor of the reward, which peaks at 0.

  Returns:
    A `Family`.
  """
  # The ramps' upper ends, where the sum over tasks may peak.
  periods = np.arange(1, 9)
  edges = [periods - 0.5 - _HALF_RAMP, periods - 1 + _HALF_RAMP]
  rings = np.exp(-np.concatenate([*edges, np.arange(0.0, 8.5, 0.125)]))
  return _line_family(
    _difficult_value,
    np.concatenate([-rings, [0.0], rings]),
    scale,
    num_experts=num_experts,
    num_tasks=num_tasks,
  )


def _line_family(
  value: object,
  offsets: np.ndarray,
  scale: float,
  *,
  num_experts: int,
  num_tasks: int,
) -> Family:
  objective = Objective(
    Partial(_draw_peaks, jnp.float32(scale)),
    Partial(value),
    Partial(_landmarks, jnp.asarray(offsets, jnp.float32)),
  )
  return image_family(
    objective, num_experts=num_experts, num_tasks=num_tasks, dims=1
  )


def _draw_peaks(scale: jax.Array, key: jax.Array, num_tasks: int) -> LineTasks:
  peaks = jax.random.uniform(
    key, (num_tasks,), minval=0.05, maxval=0.95, dtype=jnp.float32
  )
  return LineTasks(peaks, scale)


def _landmarks(offsets: jax.Array, tasks: LineTasks) -> jax.Array:
  return (tasks.peaks[:, None] + offsets[None, :]).reshape(-1, 1)


def _garland_value(tasks: LineTasks, y: jax.Array) -> jax.Array:
  z = y[0] - tasks.peaks + _GARLAND_PEAK
  # The fourth root of a square, rounded off at 0: the root of a modulus.
  root = jnp.sqrt(_rounded(jnp.sin(60.0 * z), _GARLAND_ROUNDING))
  return tasks.scale * z * (1.0 - z) * (4.0 - root)


def _double_sine_value(tasks: LineTasks, y: jax.Array) -> jax.Array:
  octaves = jnp.log2(_rounded(2.0 * (y[0] - tasks.peaks), _SINE_ROUNDING))
  sine = 0.5 + 0.5 * jnp.sin(jnp.pi * octaves)
  wide, narrow = jnp.exp2(_WIDE * octaves), jnp.exp2(_NARROW * octaves)
  return tasks.scale * (sine * (wide - narrow) - wide)


def _difficult_value(tasks: LineTasks, y: jax.Array) -> jax.Array:
  distance = _rounded(y[0] - tasks.peaks, _DIFFICULT_ROUNDING)
  # A square wave: 0 in the lower half of a period of log d, 1 in the upper.
  wave = -jnp.sin(2.0 * jnp.pi * jnp.log(distance))
  steepness = float(0.5 / np.sin(2.0 * np.pi * _HALF_RAMP))
  upper = jnp.clip(0.5 + steepness * wave, 0.0, 1.0)
  root = jnp.sqrt(distance)
  return tasks.scale * (upper * (root - distance**2) - root)


def _rounded(distance: jax.Array, rounding: float) -> jax.Array:
  return jnp.sqrt(distance**2 + rounding**2)
