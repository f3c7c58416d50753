"""Rewards that are sums of waves over a plane image of the simplex.

y is the image of the weights in a regular polygon (see `image`), uniform
weights are at its centre. Letters: V tasks, E experts, W waves of a task.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from tanbr_jax.checks import ranges
from tanbr_jax.checks.ranges import AtLeastTwo, Count, Positive
from tanbr_jax.environments.landscapes.family import Family
from tanbr_jax.environments.landscapes.image_search import (
  Objective,
  image_family,
)

_NUM_WAVES = 2


class WaveTasks(NamedTuple):
  """The waves of each task.

  Attributes:
    frequencies: [V, W, 2] radians in a unit of y.
    phases: [V, W] radians.
    scale: [] factor of the reward.
  """

  frequencies: jax.Array
  phases: jax.Array
  scale: jax.Array


@ranges.checked
def cosine(
  *,
  num_experts: AtLeastTwo,
  num_tasks: Count,
  scale: Positive = 0.3,
  low: Positive = 3.0,
  high: Positive = 8.0,
) -> Family:
  """h_v = scale times the mean of two waves cos(w . y + phase) of the task.

  The lengths of the w are U(low, high), their directions and phases uniform.

  Args:
    num_experts: E, at least 3.
    num_tasks: V.
    scale: the largest reward that can be.
    low: smallest angular frequency, > 0.
    high: largest, at most 12, which the search's lattice can still resolve.

  Returns:
    A `Family`.

  Raises:
    ValueError: the frequencies are out of range.
  """
  if not 0.0 < low <= high <= 12.0:
    raise ValueError(
      f"cosine needs 0 < low <= high <= 12, got low={low}, high={high}"
    )
  objective = Objective(
    Partial(
      _draw_waves, jnp.float32(scale), jnp.float32(low), jnp.float32(high)
    ),
    Partial(_waves_value),
    Partial(_no_landmarks),
  )
  return image_family(
    objective, num_experts=num_experts, num_tasks=num_tasks, dims=2
  )


def _draw_waves(
  scale: jax.Array,
  low: jax.Array,
  high: jax.Array,
  key: jax.Array,
  num_tasks: int,
) -> WaveTasks:
  shape = (num_tasks, _NUM_WAVES)
  length_key, angle_key, phase_key = jax.random.split(key, 3)
  lengths = low + (high - low) * jax.random.uniform(
    length_key, shape, jnp.float32
  )
  angles = 2.0 * jnp.pi * jax.random.uniform(angle_key, shape, jnp.float32)
  return WaveTasks(
    lengths[..., None] * jnp.stack([jnp.cos(angles), jnp.sin(angles)], -1),
    2.0 * jnp.pi * jax.random.uniform(phase_key, shape, jnp.float32),
    scale,
  )


def _waves_value(tasks: WaveTasks, y: jax.Array) -> jax.Array:
  angles = tasks.frequencies @ y + tasks.phases
  return tasks.scale * jnp.mean(jnp.cos(angles), axis=1)


def _no_landmarks(tasks: WaveTasks) -> jax.Array:
  del tasks
  return jnp.zeros((0, 2), jnp.float32)
