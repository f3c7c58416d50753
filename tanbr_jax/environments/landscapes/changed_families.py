"""Families made of another family: rewards that move, rewards in [0, 1].

Letters: V tasks, E experts.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from tanbr_jax.bandits.base import Shape
from tanbr_jax.environments.landscapes.family import Family, constant_bounds


class MovingParams(NamedTuple):
  """A landscape on its way between two.

  Attributes:
    landscape: the parameters of a landscape of 2 V tasks.
    angle: [V] in [0, pi), where each task is on its way.
  """

  landscape: Any
  angle: jax.Array


class UnitParams(NamedTuple):
  """A landscape and the bounds of its rewards.

  Attributes:
    landscape: the parameters of the family.
    low: [] what becomes 0.
    high: [] what becomes 1.
  """

  landscape: Any
  low: jax.Array
  high: jax.Array


def moving(family: Family, *, num_tasks: int, rate: float) -> Family:
  """Rewards that drift: each task goes to and fro between two landscapes.

  h_v = cos^2(a_v) g_v + sin^2(a_v) g_(V + v), where g is a landscape of the
  family with twice the tasks, and a_v starts at U(0, pi) and grows by pi rate a
  slot: after 1 / rate slots a task is back [R]. Under the mix psi the reward
  is that of g under the mix (cos^2(a) psi, sin^2(a) psi), so that its optimum
  is as exact as the family's own.

  Args:
    family: with 2 V tasks.
    num_tasks: V.
    rate: in (0, .5], rounds of a task in a slot.

  Returns:
    A `Family` of V tasks over `MovingParams`.

  Raises:
    ValueError: rate is out of range.
  """
  if not 0.0 < rate <= 0.5:
    raise ValueError(f"reward_drift must be in (0, 0.5], got {rate}")
  return Family(
    Partial(_moving_init, family, Shape((num_tasks,))),
    Partial(_moving_reward, family),
    Partial(_moving_optimum, family),
    None if family.bounds is None else Partial(_moving_bounds, family),
    Partial(_advance, jnp.float32(rate)),
  )


def to_unit_interval(family: Family) -> Family:
  """The family with (h - low) / (high - low) in place of h, see `bounds`.

  low and high are one number each for the whole landscape, so that the best
  weights stay the best under every mix.

  Args:
    family: one with `bounds`.

  Returns:
    A `Family` over `UnitParams` whose rewards lie in [0, 1].

  Raises:
    ValueError: the family has no bounds.
  """
  if family.bounds is None:
    raise ValueError("a family needs bounds for rewards in [0, 1], got none")
  return Family(
    Partial(_unit_init, family),
    Partial(_unit_reward, family),
    Partial(_unit_optimum, family),
    Partial(constant_bounds, jnp.float32(0.0), jnp.float32(1.0)),
    Partial(_unit_advance, family),
  )


def _moving_init(family: Family, shape: Shape, key: jax.Array) -> MovingParams:
  landscape_key, angle_key = jax.random.split(key)
  return MovingParams(
    family.init(landscape_key),
    jnp.pi * jax.random.uniform(angle_key, shape, jnp.float32),
  )


def _moving_reward(
  family: Family, params: MovingParams, merge_weights: jax.Array
) -> jax.Array:
  both = family.reward(params.landscape, merge_weights).reshape(2, -1)
  return jnp.cos(params.angle) ** 2 * both[0] + (
    jnp.sin(params.angle) ** 2 * both[1]
  )


def _moving_optimum(
  family: Family, params: MovingParams, task_mix: jax.Array
) -> jax.Array:
  first = jnp.cos(params.angle) ** 2 * task_mix
  second = jnp.sin(params.angle) ** 2 * task_mix
  return family.optimum(params.landscape, jnp.concatenate([first, second]))


def _moving_bounds(
  family: Family, params: MovingParams
) -> tuple[jax.Array, jax.Array]:
  return family.bounds(params.landscape)


def _advance(rate: jax.Array, params: MovingParams) -> MovingParams:
  angle = jnp.mod(params.angle + jnp.pi * rate, jnp.pi)
  return params._replace(angle=angle)


def _unit_init(family: Family, key: jax.Array) -> UnitParams:
  landscape = family.init(key)
  return UnitParams(landscape, *family.bounds(landscape))


def _unit_reward(
  family: Family, params: UnitParams, merge_weights: jax.Array
) -> jax.Array:
  reward = family.reward(params.landscape, merge_weights)
  return (reward - params.low) / (params.high - params.low)


def _unit_optimum(
  family: Family, params: UnitParams, task_mix: jax.Array
) -> jax.Array:
  return family.optimum(params.landscape, task_mix)


def _unit_advance(family: Family, params: UnitParams) -> UnitParams:
  return params._replace(landscape=family.advance(params.landscape))
