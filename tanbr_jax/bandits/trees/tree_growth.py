"""Growth of a tree of cells where it is played.

A leaf splits in two once its visits reach

  tau_h = ceil(split_scale rho^(-2 h)) at depth h,

with split_scale = c^2 log(1 / delta) / nu^2 the form of HCT (Azar et al. 2014)
[R]; arXiv 2509.19781 states a threshold that grows with depth. Letters: M tree
capacity.
"""

from typing import Any

import jax
import jax.numpy as jnp

from tanbr_jax.partition import Partition


def visit(
  partition: Partition,
  tree: Any,
  visits: jax.Array,
  leaf: jax.Array,
  seen: jax.Array,
  *,
  rho: jax.Array,
  split_scale: jax.Array,
) -> tuple[Any, jax.Array]:
  """Returns the tree and its visits [M] int32 after a leaf was played.

  Args:
    partition: of the tree.
    tree: of the partition.
    visits: [M] int32, slots in which a node was the leaf that was played.
    leaf: [] int32.
    seen: [] bool; if false, the slot showed nothing and both stay.
    rho: [] in (0, 1).
    split_scale: [] visits that split the root.
  """
  visits = visits.at[leaf].add(seen.astype(jnp.int32))
  depth = tree.depths[leaf].astype(jnp.float32)
  threshold = jnp.ceil(split_scale * rho ** (-2 * depth))
  splits = seen & (visits[leaf].astype(jnp.float32) >= threshold)
  return partition.split(tree, leaf, enabled=splits), visits
