"""Families whose reward depends on a one- or two-dimensional image of x.

h_v(x) = f_v(y) with y the image of x (see `image`). In `init` the rewards of
all tasks are tabulated at G points: a regular lattice, and the landmarks near
which an objective is sharp. In a slot the table is weighted by the mix; the
best local maximum of each block of neighbours stands for the block, and the
surroundings of the best few are searched again and again on smaller and smaller
lattices, which asks for no slope. Letters: V tasks, E experts, D = 1 or 2
dimensions, G points, L landmarks.
"""

import functools
import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from tanbr_jax.bandits.base import Shape
from tanbr_jax.environments.landscapes import image
from tanbr_jax.environments.landscapes.family import Family
from tanbr_jax.simplex.search import best


class _Sizes(NamedTuple):
  side: int  # points a side of the lattice
  block: int  # points a side of a block
  stencil: int  # points a side of a search
  num_searched: int  # blocks whose best point is searched
  num_coarse: int  # searches of each of them
  num_fine: int  # further searches of the best of them


# A search narrows the step by 4 in a line and by 2 in a plane: in the end it
# is below 1e-6, which float32 resolves in y.
_SIZES = {
  1: _Sizes(1024, 16, 9, num_searched=12, num_coarse=2, num_fine=5),
  2: _Sizes(64, 8, 5, num_searched=8, num_coarse=4, num_fine=12),
}
# The table misses the extremes between its points.
_BOUND_MARGIN = 0.05


class Objective(NamedTuple):
  """An objective over the image; it alone tells these families apart.

  Attributes:
    draw: `draw(key, num_tasks) -> tasks`, a tree of arrays [V, ...].
    value: `value(tasks, y [D]) -> [V]`.
    landmarks: `landmarks(tasks) -> [L, D]`, where an objective is sharp.
  """

  draw: Callable[[jax.Array, int], Any]
  value: Callable[[Any, jax.Array], jax.Array]
  landmarks: Callable[[Any], jax.Array]


class ImageParams(NamedTuple):
  """A landscape over the image.

  Attributes:
    image: the experts' places.
    tasks: the objective's parameters.
    points: [G, D] points of the image: in a line in order, in a plane the
      lattice row by row and then the landmarks.
    widths: [G] how far the next points are.
    table: [V, G] the tasks' rewards there.
  """

  image: image.Image
  tasks: Any
  points: jax.Array
  widths: jax.Array
  table: jax.Array


def image_family(
  objective: Objective, *, num_experts: int, num_tasks: int, dims: int
) -> Family:
  """The family of an objective over the image.

  Args:
    objective: what the tasks reward in the image.
    num_experts: E, at least dims + 1.
    num_tasks: V.
    dims: D.

  Returns:
    A `Family` over `ImageParams`.

  Raises:
    ValueError: there are too few experts.
  """
  if num_experts <= dims:
    raise ValueError(
      f"num_experts must be at least {dims + 1} for an objective of {dims} "
      f"dimensions, got num_experts={num_experts}"
    )
  sizes = Shape((num_tasks, num_experts, dims))
  return Family(
    Partial(_draw, objective, sizes),
    Partial(_reward, objective),
    Partial(_optimum, objective),
    Partial(_bounds),
  )


def _draw(objective: Objective, sizes: Shape, key: jax.Array) -> ImageParams:
  num_tasks, num_experts, dims = sizes
  image_key, task_key = jax.random.split(key)
  places = image.draw_image(image_key, num_experts=num_experts, dims=dims)
  tasks = objective.draw(task_key, num_tasks)
  landmarks = objective.landmarks(tasks)
  if dims == 1:
    points, widths = _points_of_line(landmarks)
  else:
    points, widths = _points_of_plane(landmarks)
  points = jax.vmap(image.clip, (None, 0))(places, points)
  table = jax.vmap(objective.value, (None, 0), 1)(tasks, points)
  return ImageParams(places, tasks, points, widths, table)


def _reward(
  objective: Objective, params: ImageParams, merge_weights: jax.Array
) -> jax.Array:
  return objective.value(params.tasks, merge_weights @ params.image.places)


def _bounds(params: ImageParams) -> tuple[jax.Array, jax.Array]:
  low, high = jnp.min(params.table), jnp.max(params.table)
  margin = _BOUND_MARGIN * (high - low)
  return low - margin, high + margin


def _optimum(
  objective: Objective, params: ImageParams, task_mix: jax.Array
) -> jax.Array:
  sizes = _SIZES[params.points.shape[1]]
  search = functools.partial(_search, objective, params, task_mix)
  starts = _best_of_blocks(params, task_mix @ params.table, sizes)
  coarse = functools.partial(search, num_steps=sizes.num_coarse)
  y, width, value = jax.vmap(coarse)(
    params.points[starts], params.widths[starts]
  )
  winner = best(value)
  y, _, _ = search(y[winner], width[winner], num_steps=sizes.num_fine)
  return image.lift(params.image, y)


def _points_of_line(landmarks: jax.Array) -> tuple[jax.Array, jax.Array]:
  sizes = _SIZES[1]
  points = jnp.concatenate(
    [jnp.linspace(0.0, 1.0, sizes.side, dtype=jnp.float32), landmarks[:, 0]]
  )
  padding = -points.shape[0] % sizes.block
  points = jnp.pad(points, (0, padding), constant_values=1.0)
  points = jnp.sort(jnp.clip(points, 0.0, 1.0))
  gaps = jnp.diff(points, prepend=points[:1], append=points[-1:])
  return points[:, None], jnp.maximum(gaps[:-1], gaps[1:])


def _points_of_plane(landmarks: jax.Array) -> tuple[jax.Array, jax.Array]:
  side = jnp.linspace(-1.0, 1.0, _SIZES[2].side, dtype=jnp.float32)
  lattice = jnp.stack(jnp.meshgrid(side, side, indexing="ij"), axis=-1)
  points = jnp.concatenate([lattice.reshape(-1, 2), landmarks])
  return points, jnp.full(points.shape[0], side[1] - side[0], jnp.float32)


def _best_of_blocks(
  params: ImageParams, scores: jax.Array, sizes: _Sizes
) -> jax.Array:
  """Indices of the points to search from, the best of some blocks."""
  dims = params.points.shape[1]
  num_points = scores.shape[0]
  num_lattice = num_points if dims == 1 else sizes.side**2
  shape = (num_points,) if dims == 1 else (sizes.side, sizes.side)
  index = jnp.arange(num_lattice, dtype=jnp.int32).reshape(shape)
  peaks = _keep_peaks(scores[:num_lattice].reshape(shape))
  blocks, index = _in_blocks(peaks, sizes), _in_blocks(index, sizes)
  chosen = jax.vmap(best)(blocks)[:, None]
  values = jnp.take_along_axis(blocks, chosen, axis=1)[:, 0]
  index = jnp.take_along_axis(index, chosen, axis=1)[:, 0]
  values = jnp.concatenate([values, scores[num_lattice:]])
  index = jnp.concatenate(
    [index, jnp.arange(num_lattice, num_points, dtype=jnp.int32)]
  )
  return index[jax.lax.top_k(values, sizes.num_searched)[1]]


def _keep_peaks(scores: jax.Array) -> jax.Array:
  """-inf in place of whatever has a better neighbour along an axis."""
  is_peak = jnp.ones(scores.shape, bool)
  for axis in range(scores.ndim):
    rises = jnp.diff(scores, axis=axis) > 0.0
    start = [(0, 0)] * scores.ndim
    start[axis] = (1, 0)
    end = [(0, 0)] * scores.ndim
    end[axis] = (0, 1)
    falls = jnp.diff(scores, axis=axis) < 0.0
    is_peak &= ~jnp.pad(rises, end) & ~jnp.pad(falls, start)
  return jnp.where(is_peak, scores, -jnp.inf)


def _in_blocks(lattice: jax.Array, sizes: _Sizes) -> jax.Array:
  """The lattice's entries, [blocks, entries of a block]."""
  size = sizes.block
  if lattice.ndim == 1:
    return lattice.reshape(-1, size)
  count = lattice.shape[0] // size
  parts = lattice.reshape(count, size, count, size)
  return parts.transpose(0, 2, 1, 3).reshape(count**2, size**2)


def _search(
  objective: Objective,
  params: ImageParams,
  task_mix: jax.Array,
  y: jax.Array,
  width: jax.Array,
  *,
  num_steps: int,
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Moves a point y [D] to better ones, within a width [] that shrinks."""
  dims = y.shape[0]
  side = np.linspace(-1.0, 1.0, _SIZES[dims].stencil, dtype=np.float32)
  stencil = jnp.asarray(list(itertools.product(side, repeat=dims)))
  spacing = float(side[1] - side[0])

  def step(_: jax.Array, carry: tuple) -> tuple:
    y, width, _ = carry
    around = y[None, :] + width * stencil
    around = jax.vmap(image.clip, (None, 0))(params.image, around)
    values = jax.vmap(objective.value, (None, 0))(params.tasks, around)
    values = values @ task_mix
    chosen = best(values)
    return around[chosen], spacing * width, values[chosen]

  return jax.lax.fori_loop(0, num_steps, step, (y, width, jnp.float32(0.0)))
