"""Reward families that were fitted to real models' merges.

The log-likelihood of merges of a trained model, measured all over the simplex
(`experiments.sample_landscape`), is fitted task by task by a concave quadratic,

  h_v(x) = b_v . x - |R_v x|^2,

a constant being part of b as the weights sum to one (`experiments.
fit_landscape`; how well it fits stands in experiments/regret/README.md). The
landscape is that of the model; a seed draws which expert and which task has
which number, and which of them there are if fewer are asked for.
Letters: V tasks, E experts, V' and E' those of a table.
"""

import functools
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from tanbr_jax.bandits.base import Shape
from tanbr_jax.checks import ranges
from tanbr_jax.checks.names import check_choice
from tanbr_jax.checks.ranges import AtLeastTwo, Count
from tanbr_jax.environments.landscapes.family import Family
from tanbr_jax.simplex.projection import project
from tanbr_jax.storage import atomic

FOLDER = Path(__file__).parent / "tables"
# Steps of the accelerated ascent to the best weights.
_NUM_STEPS = 60


class FittedTasks(NamedTuple):
  """The fitted quadratics.

  Attributes:
    slopes: [V, E], b.
    roots: [V, E, E], R.
  """

  slopes: jax.Array
  roots: jax.Array


@functools.cache
def read(model: str) -> FittedTasks:
  """Reads a table, [V', E'] and [V', E', E'].

  Raises:
    ValueError: there is no table of that model.
  """
  names = sorted(path.stem for path in FOLDER.glob("*.npz"))
  check_choice("model", model, names)
  arrays, _ = atomic.read_arrays(FOLDER / f"{model}.npz")
  slopes, curvatures = arrays["slopes"], arrays["curvatures"]
  values, vectors = np.linalg.eigh(curvatures.astype(np.float64))
  roots = np.sqrt(np.maximum(values, 0))[:, :, None] * vectors.swapaxes(1, 2)
  return FittedTasks(np.float32(slopes), np.float32(roots))


@ranges.checked
def fitted(
  *, num_experts: AtLeastTwo, num_tasks: Count, model: str = "bytes_8"
) -> Family:
  """h_v(x) = b_v . x - |R_v x|^2, fitted to a real model's merges.

  Args:
    num_experts: E, at most those of the table.
    num_tasks: V, at most those of the table.
    model: the table's name: of a byte model or of upcycled SmolLM2, and E'.

  Returns:
    A `Family` whose parameters are `FittedTasks`.

  Raises:
    ValueError: there is no such table, or it has too few experts or tasks.
  """
  table = read(model)
  most_tasks, most_experts = table.slopes.shape
  if num_experts > most_experts or num_tasks > most_tasks:
    raise ValueError(
      f"the table {model!r} has {most_experts} experts and {most_tasks} tasks, "
      f"got num_experts={num_experts}, num_tasks={num_tasks}"
    )
  shape = Shape((num_tasks, num_experts))
  return Family(
    Partial(_draw, shape, jax.tree.map(jnp.asarray, table)),
    Partial(_reward),
    Partial(_optimum),
    Partial(_bounds),
  )


def _draw(shape: Shape, table: FittedTasks, key: jax.Array) -> FittedTasks:
  task_key, expert_key = jax.random.split(key)
  num_tasks, num_experts = table.slopes.shape
  tasks = jax.random.permutation(task_key, num_tasks)[: shape[0]]
  experts = jax.random.permutation(expert_key, num_experts)[: shape[1]]
  return FittedTasks(
    table.slopes[tasks][:, experts], table.roots[tasks][:, :, experts]
  )


def _reward(tasks: FittedTasks, merge_weights: jax.Array) -> jax.Array:
  squares = jnp.sum(_dot(tasks.roots, merge_weights) ** 2, axis=1)
  return _dot(tasks.slopes, merge_weights) - squares


def _optimum(tasks: FittedTasks, task_mix: jax.Array) -> jax.Array:
  """Accelerated projected ascent (Nesterov 1983; Beck and Teboulle 2009).

  With the restarts of O'Donoghue and Candes (2015), whenever a step goes
  against the momentum.
  """
  num_experts = tasks.slopes.shape[1]
  slope = _dot(task_mix, tasks.slopes)
  roots = jnp.sqrt(task_mix)[:, None, None] * tasks.roots
  roots = roots.reshape(-1, num_experts)
  curvature = _dot(roots.T, roots)
  # No eigenvalue is beyond the largest sum of a row.
  size = 0.5 / jnp.max(jnp.sum(jnp.abs(curvature), axis=1))

  def step(_, carry):
    last, ahead, momentum = carry
    gradient = slope - 2 * _dot(curvature, ahead)
    point = project(ahead + size * gradient)
    restarts = jnp.dot(gradient, point - last) < 0
    following = 0.5 * (1 + jnp.sqrt(1 + 4 * momentum**2))
    share = jnp.where(restarts, 0.0, (momentum - 1) / following)
    following = jnp.where(restarts, 1.0, following)
    return point, point + share * (point - last), following

  centre = jnp.full(num_experts, 1 / num_experts, jnp.float32)
  carry = centre, centre, jnp.float32(1)
  return jax.lax.fori_loop(0, _NUM_STEPS, step, carry)[0]


def _bounds(tasks: FittedTasks) -> tuple[jax.Array, jax.Array]:
  """The least reward is at a vertex, as all are concave.

  None is beyond its tangent at the centre, whose largest value is at a vertex.
  """
  num_experts = tasks.slopes.shape[1]
  squares = jnp.sum(tasks.roots**2, axis=1)
  centre = jnp.full(num_experts, 1 / num_experts, jnp.float32)
  rewards, slopes = (
    _reward(tasks, centre),
    jax.jacobian(lambda x: _reward(tasks, x))(centre),
  )
  tangents = rewards + jnp.max(slopes, axis=1) - _dot(slopes, centre)
  return jnp.min(tasks.slopes - squares), jnp.max(tangents)


def _dot(a: jax.Array, b: jax.Array) -> jax.Array:
  return jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)
