"""Classic objectives of two variables, carried onto the simplex.

y is the image of the weights in a regular polygon (see `image`), uniform
weights are at its centre, and every task sees the plane moved and turned in a
way of its own [R]. Rewards are sized so that uniform weights lose .05 to .4 a
slot. Letters: V tasks, E experts.
"""

from collections.abc import Callable
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


class PlaneTasks(NamedTuple):
  """The plane as each task sees it: z = radius turn_v (y - t_v).

  Attributes:
    origins: [V, 2] t_v.
    turns: [V, 2, 2] rotations.
    radius: [] units of z in a unit of y.
    scale: [] factor of the reward.
  """

  origins: jax.Array
  turns: jax.Array
  radius: jax.Array
  scale: jax.Array


@ranges.checked
def himmelblau(
  *, num_experts: AtLeastTwo, num_tasks: Count, scale: Positive = 0.3
) -> Family:
  """-scale / 170 ((z1^2 + z2 - 11)^2 + (z1 + z2^2 - 7)^2), four equal peaks.

  z = 5.5 y, moved by up to a fifth of the disc; the centre pays -scale.

  Args:
    num_experts: E, at least 3.
    num_tasks: V.
    scale: factor of the reward, which peaks at 0.

  Returns:
    A `Family`.
  """
  return _plane_family(
    _himmelblau_value,
    scale=scale,
    radius=5.5,
    spread=0.2,
    num_experts=num_experts,
    num_tasks=num_tasks,
  )


@ranges.checked
def ackley(
  *, num_experts: AtLeastTwo, num_tasks: Count, scale: Positive = 1.0
) -> Family:
  """Ackley's function / -10: a cone under ripples.

  20 + e - 20 exp(-.2 sqrt(|z|^2 / 2)) - exp((cos 2 pi z1 + cos 2 pi z2) / 2),
  z = 2 (y - t_v).

  Args:
    num_experts: E, at least 3.
    num_tasks: V.
    scale: factor of the reward, which peaks at 0.

  Returns:
    A `Family`.
  """
  return _plane_family(
    _ackley_value,
    scale=scale,
    radius=2.0,
    spread=0.8,
    num_experts=num_experts,
    num_tasks=num_tasks,
  )


@ranges.checked
def rastrigin(
  *, num_experts: AtLeastTwo, num_tasks: Count, scale: Positive = 0.4
) -> Family:
  """Rastrigin's function / -20: a bowl under ripples.

  |z|^2 + 10 (2 - cos 2 pi z1 - cos 2 pi z2), z = 1.5 (y - t_v).

  Args:
    num_experts: E, at least 3.
    num_tasks: V.
    scale: factor of the reward, which peaks at 0.

  Returns:
    A `Family`.
  """
  return _plane_family(
    _rastrigin_value,
    scale=scale,
    radius=1.5,
    spread=0.8,
    num_experts=num_experts,
    num_tasks=num_tasks,
  )


def _plane_family(
  value: Callable[[jax.Array, jax.Array], jax.Array],
  *,
  scale: float,
  radius: float,
  spread: float,
  num_experts: int,
  num_tasks: int,
) -> Family:
  # The rim of the polygon comes as near as this to its centre.
  rim = spread * float(np.cos(np.pi / num_experts))
  objective = Objective(
    Partial(
      _draw_views, jnp.float32(scale), jnp.float32(radius), jnp.float32(rim)
    ),
    Partial(_seen, Partial(value)),
    Partial(_origins),
  )
  return image_family(
    objective, num_experts=num_experts, num_tasks=num_tasks, dims=2
  )


def _draw_views(
  scale: jax.Array,
  radius: jax.Array,
  rim: jax.Array,
  key: jax.Array,
  num_tasks: int,
) -> PlaneTasks:
  """Origins uniform in the disc of radius `rim`, turns uniform."""
  draws = jax.random.uniform(key, (3, num_tasks), jnp.float32)
  angles = 2.0 * jnp.pi * draws[:2]
  cos, sin = jnp.cos(angles), jnp.sin(angles)
  origins = rim * jnp.sqrt(draws[2])[:, None] * jnp.stack([cos[0], sin[0]], -1)
  turns = jnp.stack(
    [jnp.stack([cos[1], -sin[1]], -1), jnp.stack([sin[1], cos[1]], -1)], axis=1
  )
  return PlaneTasks(origins, turns, radius, scale)


def _origins(tasks: PlaneTasks) -> jax.Array:
  return tasks.origins


def _seen(value: Partial, tasks: PlaneTasks, y: jax.Array) -> jax.Array:
  """The reward [V] at y [2]."""
  away = tasks.radius * (y[None, :] - tasks.origins)
  z1 = jnp.sum(tasks.turns[:, 0] * away, axis=1)
  z2 = jnp.sum(tasks.turns[:, 1] * away, axis=1)
  return tasks.scale * value(z1, z2)


def _himmelblau_value(z1: jax.Array, z2: jax.Array) -> jax.Array:
  return -((z1**2 + z2 - 11.0) ** 2 + (z1 + z2**2 - 7.0) ** 2) / 170.0


def _ackley_value(z1: jax.Array, z2: jax.Array) -> jax.Array:
  cone = 20.0 * jnp.exp(-0.2 * jnp.sqrt(0.5 * (z1**2 + z2**2)))
  turn = 2.0 * jnp.pi
  ripples = jnp.exp(0.5 * (jnp.cos(turn * z1) + jnp.cos(turn * z2)))
  return (cone + ripples - 20.0 - jnp.e) / 10.0


def _rastrigin_value(z1: jax.Array, z2: jax.Array) -> jax.Array:
  turn = 2.0 * jnp.pi
  ripples = 2.0 - jnp.cos(turn * z1) - jnp.cos(turn * z2)
  return -(z1**2 + z2**2 + 10.0 * ripples) / 20.0
