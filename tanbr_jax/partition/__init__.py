"""Binary trees over the simplex of merge weights."""

from tanbr_jax.partition.base import Partition, Tree
from tanbr_jax.partition.box import BoxTree, box
from tanbr_jax.partition.simplex import SimplexTree, simplex

__all__ = [
  "BoxTree",
  "Partition",
  "SimplexTree",
  "Tree",
  "box",
  "simplex",
]
