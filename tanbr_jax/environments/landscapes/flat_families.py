"""Reward families that are flat almost everywhere.

Without a slope to follow, the reward of a place is learnt at that place only.
Letters: V tasks, E experts.
"""

import itertools
from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from tanbr_jax.bandits.base import Shape
from tanbr_jax.checks import ranges
from tanbr_jax.checks.ranges import AtLeastTwo, Count, Positive, Range
from tanbr_jax.environments.landscapes.family import Family, constant_bounds
from tanbr_jax.simplex.points import dirichlet_half

# 2^12 subsets of tasks: beyond it `plateau` would be slow, not wrong.
_MAX_PLATEAU_TASKS = 12
# Rewards inside the wheel, per unit of scale.
_SAFE_REWARD = 0.2


@ranges.checked
def plateau(
  *,
  num_experts: AtLeastTwo,
  num_tasks: Count,
  scale: Positive = 0.6,
  radius: Positive = 0.5,
) -> Family:
  """h_v(x) = scale max(0, 1 - |x - c_v|^2 / radius^2), c_v ~ Dirichlet(1/2).

  Flat, without a slope to follow, farther than `radius` from the task's
  optimum. Leaving out max(0, .) of a subset S of the tasks and the rest of
  them altogether bounds psi . h from below, with equality at the best weights
  for the right S. For each S the bound is largest at the mean centre of S,
  which lies on the simplex: the best of the 2^V mean centres is exact.

  Args:
    num_experts: E.
    num_tasks: V, at most 12.
    scale: reward at a task's optimum.
    radius: where the plateau begins.

  Returns:
    A `Family` whose parameters are the c_v [V, E].

  Raises:
    ValueError: there are too many tasks, or radius is not positive.
  """
  if num_tasks > _MAX_PLATEAU_TASKS:
    raise ValueError(
      f"num_tasks of plateau must be at most {_MAX_PLATEAU_TASKS} (rewards "
      f"that drift count twice), got num_tasks={num_tasks}"
    )
  shape = Shape((num_tasks, num_experts))
  scale, radius = jnp.float32(scale), jnp.float32(radius)
  return Family(
    Partial(dirichlet_half, shape=shape),
    Partial(_plateau_reward, scale, radius),
    Partial(_best_mean_centre, radius),
    Partial(constant_bounds, jnp.float32(0.0), scale),
  )


@ranges.checked
def wheel(
  *,
  num_experts: AtLeastTwo,
  num_tasks: Count,
  scale: Positive = 0.5,
  delta: Annotated[float, Range(0.5, 1)] = 0.5,
) -> Family:
  """The wheel bandit carried onto the simplex: a safe middle, rare prizes.

  In the wheel (Riquelme, Tucker and Snoek 2018, "Deep Bayesian bandits
  showdown", section 5.4) contexts fill a disc. One arm always pays mu_1; the
  others pay mu_2 < mu_1 within radius delta, and beyond it the arm of the
  context's quadrant pays mu_3 >> mu_1. The larger delta, the rarer the
  contexts that show it.

  Here the played weights take the place of the context, because psi . h must
  hold for every mix [R]: weights whose largest entry is at most delta are the
  inside and pay the safe .2 scale for every task. Beyond it lie E corners, as
  many as the wheel has sectors: there a task pays `scale` in its own corner and
  nothing in the others. The corners hold E (1 - delta)^(E - 1) of the simplex's
  volume (three experts: 3/4 at delta = .5, .12 at .8). Corners are dealt to
  the tasks in a random order, and again from the first if V > E. With the mix,
  corner e pays scale times the share of its tasks: its vertex, or uniform
  weights where no corner pays more than .2, is best.

  Args:
    num_experts: E, at least 3.
    num_tasks: V.
    scale: reward of a task in its own corner.
    delta: in [.5, 1), so that corners do not meet.

  Returns:
    A `Family` whose parameters are the table [V, E] of rewards in the corners.

  Raises:
    ValueError: there are too few experts, or delta is out of range.
  """
  if num_experts < 3:
    raise ValueError(
      f"num_experts of wheel must be at least 3, got num_experts={num_experts}"
    )
  scale = jnp.float32(scale)
  return Family(
    Partial(_deal_corners, Shape((num_tasks, num_experts)), scale),
    Partial(_wheel_reward, scale, jnp.float32(delta)),
    Partial(_best_corner, scale),
    Partial(constant_bounds, jnp.float32(0.0), scale),
  )


def _plateau_reward(
  scale: jax.Array,
  radius: jax.Array,
  centres: jax.Array,
  merge_weights: jax.Array,
) -> jax.Array:
  squares = jnp.sum((merge_weights[None, :] - centres) ** 2, axis=1)
  return scale * jnp.maximum(0.0, 1.0 - squares / radius**2)


def _best_mean_centre(
  radius: jax.Array, centres: jax.Array, task_mix: jax.Array
) -> jax.Array:
  num_tasks = task_mix.shape[0]
  subsets = np.array(
    list(itertools.product((0.0, 1.0), repeat=num_tasks))[1:], np.float32
  )
  shares = jnp.asarray(subsets) * task_mix[None, :]
  total = jnp.sum(shares, axis=1)
  # Tasks of share zero alone make no centre; their bound is 0 anywhere.
  means = (shares @ centres) / jnp.maximum(total, 1e-30)[:, None]
  squares = shares @ jnp.sum(centres**2, axis=1)
  spread = squares - total * jnp.sum(means**2, axis=1)
  best = means[jnp.argmax(total - spread / radius**2)]
  return best / jnp.sum(best)


def _deal_corners(shape: Shape, scale: jax.Array, key: jax.Array) -> jax.Array:
  num_tasks, num_experts = shape
  experts = jnp.arange(num_experts, dtype=jnp.int32)
  order = jax.random.permutation(key, experts)
  corners = jnp.tile(order, -(-num_tasks // num_experts))[:num_tasks]
  own = jax.nn.one_hot(corners, num_experts, dtype=jnp.float32)
  return scale * own


def _wheel_reward(
  scale: jax.Array,
  delta: jax.Array,
  corners: jax.Array,
  merge_weights: jax.Array,
) -> jax.Array:
  outside = jnp.max(merge_weights) > delta
  return jnp.where(
    outside, corners[:, jnp.argmax(merge_weights)], _SAFE_REWARD * scale
  )


def _best_corner(
  scale: jax.Array, corners: jax.Array, task_mix: jax.Array
) -> jax.Array:
  num_experts = corners.shape[1]
  paid = task_mix @ corners
  vertex = jax.nn.one_hot(jnp.argmax(paid), num_experts, dtype=jnp.float32)
  middle = jnp.full(num_experts, 1.0 / num_experts, jnp.float32)
  return jnp.where(jnp.max(paid) > _SAFE_REWARD * scale, vertex, middle)
