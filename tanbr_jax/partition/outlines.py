"""The cells of a tree over three experts as polygons, for pictures.

NumPy code outside `jit`: a picture needs each leaf once.
"""

from collections.abc import Callable

import numpy as np

from tanbr_jax.partition.base import Tree
from tanbr_jax.partition.box import BoxTree
from tanbr_jax.partition.simplex import SimplexTree


def outlines(tree: Tree) -> dict[int, np.ndarray]:
  """The corners of every leaf's cell, in order around it.

  Args:
    tree: of `simplex` or `box`, over three experts.

  Returns:
    leaf -> [K, 3] float64 weights, K = 3 for simplices, up to 6 for boxes. A
    box that only touches the simplex has corners that coincide.

  Raises:
    ValueError: if the tree is of another kind or of other than three experts.
  """
  num_experts = tree.representatives.shape[-1]
  corners = _CORNERS.get(type(tree))
  if num_experts != 3 or corners is None:
    raise ValueError(
      "outlines need a SimplexTree or BoxTree over 3 experts, got "
      f"{type(tree).__name__}, num_experts={num_experts}"
    )
  return {
    int(leaf): corners(tree, leaf) for leaf in np.flatnonzero(tree.is_leaf)
  }


def _simplex_corners(tree: SimplexTree, leaf: int) -> np.ndarray:
  vertices = np.asarray(tree.vertices, np.float64)
  return vertices[np.asarray(tree.vertex_ids)[leaf]]


def _box_corners(tree: BoxTree, leaf: int) -> np.ndarray:
  """The simplex, clipped by one side of the box after another."""
  polygon = np.eye(3)
  for axis in range(3):
    polygon = _clip(polygon, axis, float(tree.lowers[leaf, axis]), 1.0)
    polygon = _clip(polygon, axis, float(tree.uppers[leaf, axis]), -1.0)
  return polygon


def _clip(
  polygon: np.ndarray, axis: int, bound: float, sign: float
) -> np.ndarray:
  """Keeps sign * (x_axis - bound) >= 0 (Sutherland and Hodgman 1974)."""
  inside = sign * (polygon[:, axis] - bound)
  kept = []
  for i in range(len(polygon)):
    here, before = inside[i], inside[i - 1]
    if here * before < 0:
      share = before / (before - here)
      kept.append(polygon[i - 1] + share * (polygon[i] - polygon[i - 1]))
    if here >= 0:
      kept.append(polygon[i])
  return np.asarray(kept).reshape(-1, 3)


_CORNERS: dict[type, Callable[..., np.ndarray]] = {
  BoxTree: _box_corners,
  SimplexTree: _simplex_corners,
}
