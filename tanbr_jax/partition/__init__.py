"""Binary trees over the simplex of merge weights."""

from tanbr_jax.partition.base import Partition, Tree
from tanbr_jax.partition.box import BoxTree, box
from tanbr_jax.partition.simplex import SimplexTree, simplex
from tanbr_jax.simplex.box_projection import project

__all__ = [
  "BoxTree",
  "Partition",
  "SimplexTree",
  "Tree",
  "box",
  "project",
  "simplex",
]
