"""Values that begin alike on all devices of a `jax.shard_map`, and then vary.

A loop's carry, and the state that a bandit begins with, must have one type
from the first turn on, and whether a value varies over the devices is a part
of its type where `check_vma` is on.
"""

from typing import Any, TypeVar

import jax

Tree = TypeVar("Tree")


def alike(tree: Tree, *others: Any) -> Tree:
  """Returns the tree with leaves that vary wherever one of all leaves does.

  Outside of `jax.shard_map`, and where its check is off, that is the tree as it
  is. A derivative with respect to a value that does not vary would be summed
  over the devices: what is differentiated is made alike first.

  Args:
    tree: a pytree of arrays.
    others: pytrees of arrays, read for the axes that they vary over.
  """
  axes = frozenset().union(*map(_axes, jax.tree.leaves((tree, others))))

  def vary(leaf: Any) -> Any:
    missing = tuple(sorted(axes - _axes(leaf)))
    return jax.lax.pcast(leaf, missing, to="varying") if missing else leaf

  return jax.tree.map(vary, tree)


def _axes(leaf: Any) -> frozenset[str]:
  return jax.typeof(leaf).manual_axis_type.varying
