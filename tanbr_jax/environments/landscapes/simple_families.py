"""Reward families whose best weights have a closed form.

The papers measure real models only: these families are ours [R], sized so that
uniform weights lose .05 to .4 of reward a slot. Letters: V tasks, E experts.
"""

import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from tanbr_jax.bandits.base import Shape
from tanbr_jax.checks import ranges
from tanbr_jax.checks.ranges import AtLeastTwo, Count, Positive
from tanbr_jax.environments.landscapes.family import Family, constant_bounds
from tanbr_jax.simplex.points import dirichlet_half, dirichlet_one
from tanbr_jax.simplex.projection import project


@ranges.checked
def quadratic(
  *, num_experts: AtLeastTwo, num_tasks: Count, scale: Positive = 1.0
) -> Family:
  """h_v(x) = -scale |x - c_v|^2 around task optima c_v ~ Dirichlet(1).

  psi . h is -scale |x - c|^2 plus a constant, c = sum_v psi_v c_v, so that c,
  which lies on the simplex, is the best weight vector.

  Args:
    num_experts: E.
    num_tasks: V.
    scale: curvature of the reward.

  Returns:
    A `Family` whose parameters are the c_v [V, E].
  """
  shape = Shape((num_tasks, num_experts))
  scale = jnp.float32(scale)
  return Family(
    Partial(dirichlet_one, shape=shape),
    Partial(_quadratic_reward, scale),
    Partial(_mean_centre),
    # Two points of the simplex are at most sqrt(2) apart.
    Partial(constant_bounds, -2.0 * scale, jnp.float32(0.0)),
  )


@ranges.checked
def saturating(
  *, num_experts: AtLeastTwo, num_tasks: Count, rate: Positive = 4.0
) -> Family:
  """h_v(x) = sum_e a_ve (1 - exp(-rate x_e)), a_v ~ Dirichlet(1/2).

  With w = psi a the stationarity condition w_e exp(-rate x_e) = const where
  x_e > 0 reads x_e = max(0, log(w_e) / rate - tau): the best weights are the
  Euclidean projection of log(w) / rate on the simplex (water filling).

  Args:
    num_experts: E.
    num_tasks: V.
    rate: how fast an expert's contribution saturates.

  Returns:
    A `Family` whose parameters are the gains a_ve [V, E].
  """
  shape = Shape((num_tasks, num_experts))
  rate = jnp.float32(rate)
  return Family(
    Partial(dirichlet_half, shape=shape),
    Partial(_saturating_reward, rate),
    Partial(_water_filling, rate),
    Partial(constant_bounds, jnp.float32(0.0), -jnp.expm1(-rate)),
  )


@ranges.checked
def linear_contextual(
  *, num_experts: AtLeastTwo, num_tasks: Count, scale: Positive = 0.2
) -> Family:
  """h_v(x) = a_v . x with a_v ~ N(0, scale^2 I): the linear contextual bandit.

  psi . h is linear in the outer product of mix and weights, and the vertex of
  the largest entry of psi a is best.

  Args:
    num_experts: E.
    num_tasks: V.
    scale: standard deviation of the reward over the vertices.

  Returns:
    A `Family` whose parameters are the a_v [V, E].
  """
  shape = Shape((num_tasks, num_experts))
  return Family(
    Partial(_draw_slopes, shape, jnp.float32(scale)),
    Partial(_linear_reward),
    Partial(_best_vertex),
    Partial(_range),
  )


def _quadratic_reward(
  scale: jax.Array, centres: jax.Array, merge_weights: jax.Array
) -> jax.Array:
  return -scale * jnp.sum((merge_weights[None, :] - centres) ** 2, axis=1)


def _mean_centre(centres: jax.Array, task_mix: jax.Array) -> jax.Array:
  return task_mix @ centres


def _saturating_reward(
  rate: jax.Array, gains: jax.Array, merge_weights: jax.Array
) -> jax.Array:
  return gains @ -jnp.expm1(-rate * merge_weights)


def _water_filling(
  rate: jax.Array, gains: jax.Array, task_mix: jax.Array
) -> jax.Array:
  return project(jnp.log(task_mix @ gains) / rate)


def _draw_slopes(shape: Shape, scale: jax.Array, key: jax.Array) -> jax.Array:
  return scale * jax.random.normal(key, shape, jnp.float32)


def _linear_reward(slopes: jax.Array, merge_weights: jax.Array) -> jax.Array:
  return slopes @ merge_weights


def _best_vertex(slopes: jax.Array, task_mix: jax.Array) -> jax.Array:
  best = jnp.argmax(task_mix @ slopes)
  return jax.nn.one_hot(best, slopes.shape[1], dtype=jnp.float32)


def _range(slopes: jax.Array) -> tuple[jax.Array, jax.Array]:
  return jnp.min(slopes), jnp.max(slopes)
