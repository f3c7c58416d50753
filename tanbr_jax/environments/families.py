"""Reward families over the simplex whose best weights can be computed.

A family draws one landscape per task; the reward of weights x under the mix
psi is psi . h(x). Letters: V tasks, E experts, H hidden units. The papers
measure real models only: these families are ours, sized so that uniform
weights lose .05 to .4 of reward a slot.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from tanbr_jax.environments import network_search
from tanbr_jax.environments.projection import project_on_simplex
from tanbr_jax.environments.static import Static

Params = Any


class Family(NamedTuple):
  """A family of reward landscapes as three pure functions.

  Attributes:
    init: `init(key) -> params`, a landscape for each task.
    reward: `reward(params, merge_weights [E]) -> [V]`, h(x).
    optimum: `optimum(params, task_mix [V]) -> [E]`, argmax of psi . h(x).
  """

  init: Callable[[jax.Array], Params]
  reward: Callable[[Params, jax.Array], jax.Array]
  optimum: Callable[[Params, jax.Array], jax.Array]


def quadratic(
  *, num_experts: int, num_tasks: int, scale: float = 1.0
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
  shape = Static((num_tasks, num_experts))
  scale = jnp.float32(scale)
  return Family(
    Partial(_draw_centres, shape),
    Partial(_quadratic_reward, scale),
    Partial(_mean_centre),
  )


def saturating(
  *, num_experts: int, num_tasks: int, rate: float = 4.0
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
  shape = Static((num_tasks, num_experts))
  rate = jnp.float32(rate)
  return Family(
    Partial(_draw_gains, shape),
    Partial(_saturating_reward, rate),
    Partial(_water_filling, rate),
  )


def network(
  *, num_experts: int, num_tasks: int, num_hidden: int = 32
) -> Family:
  """A random two-layer network h(x) = W' tanh(A x + b), not concave.

  Entries of A [H, E] are N(0, 4), of b N(0, 1/4), of W [H, V] N(0, .16 / H).
  The best weights are found by search (see `network_search`).

  Args:
    num_experts: E.
    num_tasks: V.
    num_hidden: H.

  Returns:
    A `Family` whose parameters are the network's and the candidates'.
  """
  shape = Static((num_tasks, num_experts, num_hidden))
  return Family(
    Partial(network_search.draw, shape),
    Partial(network_search.reward),
    Partial(network_search.optimum),
  )


def _draw_centres(shape: Static, key: jax.Array) -> jax.Array:
  num_tasks, num_experts = shape.value
  # Normalised exponentials are Dirichlet(1), and compile far faster.
  draws = jax.random.exponential(key, (num_tasks, num_experts))
  return draws / jnp.sum(draws, axis=1, keepdims=True)


def _quadratic_reward(
  scale: jax.Array, centres: jax.Array, merge_weights: jax.Array
) -> jax.Array:
  return -scale * jnp.sum((merge_weights[None, :] - centres) ** 2, axis=1)


def _mean_centre(centres: jax.Array, task_mix: jax.Array) -> jax.Array:
  return task_mix @ centres


def _draw_gains(shape: Static, key: jax.Array) -> jax.Array:
  num_tasks, num_experts = shape.value
  # Normalised squares of normals are Dirichlet(1/2).
  draws = jax.random.normal(key, (num_tasks, num_experts)) ** 2
  return draws / jnp.sum(draws, axis=1, keepdims=True)


def _saturating_reward(
  rate: jax.Array, gains: jax.Array, merge_weights: jax.Array
) -> jax.Array:
  return gains @ -jnp.expm1(-rate * merge_weights)


def _water_filling(
  rate: jax.Array, gains: jax.Array, task_mix: jax.Array
) -> jax.Array:
  return project_on_simplex(jnp.log(task_mix @ gains) / rate)


FAMILIES = {
  "network": network,
  "quadratic": quadratic,
  "saturating": saturating,
}
