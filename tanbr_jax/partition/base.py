"""A partition, and the fields and walks that all trees share.

A partition covers the simplex of merge weights with the leaves of a binary
tree. The tree is one frozen dataclass of preallocated arrays, so that it can
be carried by `lax.scan`; the functions are pure and unbatched (`vmap` is
outside). Letters: E experts, M capacity of the tree in nodes.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from tanbr_jax.simplex.varying import alike

# Levels that a walk goes down in one turn on a GPU.
_BURST = 8


class Partition(NamedTuple):
  """A partition of the simplex as six pure functions.

  Each of them is a `jax.tree_util.Partial` without array leaves, so that a
  `Partition` is a pytree, and two that were built with the same arguments are
  equal to `jit`.

  Attributes:
    init: `init() -> tree`, the root alone.
    split: `split(tree, node, enabled=True) -> tree` with the two children of
      `node` appended, the lower one first. Nothing is written if `enabled` is
      false, if `node` is not a leaf (any index is allowed, -1 and M too), if
      its cell is already as small as `Tree.RESOLUTION`, or if fewer than two
      slots are free. In the last case `tree.full` becomes true.
    locate: `locate(tree, weights [E]) -> node`, the one leaf that holds the
      weights; on the boundary of two cells it is the lower child's.
    contains: `contains(tree, node, weights [E]) -> bool`, whether the node is
      on the way from the root to `locate(tree, weights)`. Hence among the
      leaves it holds for one and only one.
    diameter: `diameter(tree, node) -> []`, in Euclidean length.
    volume: `volume(tree, node) -> []`, as a share of the root's.
  """

  init: Callable[[], Any]
  split: Callable[..., Any]
  locate: Callable[[Any, jax.Array], jax.Array]
  contains: Callable[[Any, jax.Array, jax.Array], jax.Array]
  diameter: Callable[[Any, jax.Array], jax.Array]
  volume: Callable[[Any, jax.Array], jax.Array]


@dataclasses.dataclass(frozen=True)
class Tree:
  """The fields that every tree has.

  Slots from `num_nodes` on are free; they hold the root's representative, so
  that every row of `representatives` is on the simplex.
  """

  parents: jax.Array  # [M] int32, NO_PARENT for the root and free slots
  children: jax.Array  # [M, 2] int32, NO_CHILD where there is none
  depths: jax.Array  # [M] int32, 0 for the root
  is_leaf: jax.Array  # [M] bool, a leaf whose cell meets the simplex
  representatives: jax.Array  # [M, E] float32, one point of each cell
  num_nodes: jax.Array  # [] int32
  full: jax.Array  # [] bool, a split was refused for want of room

  ROOT: ClassVar[int] = 0
  NO_PARENT: ClassVar[int] = -1
  NO_CHILD: ClassVar[int] = -1
  # [R] Smaller cells are not split: down to here the corners are dyadic
  # numbers that float32 holds exactly, and so are the sums that decide on
  # feasibility.
  RESOLUTION: ClassVar[float] = 2.0**-16


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Size:
  """The static sizes of a tree.

  Attributes:
    num_experts: E.
    capacity: M, the most nodes that the tree can have.
  """

  num_experts: int
  capacity: int

  def __post_init__(self) -> None:
    """Checks the sizes.

    Raises:
      ValueError: if there are fewer than two experts or no node.
    """
    if self.num_experts < 2:
      raise ValueError(
        f"num_experts must be at least 2, got num_experts={self.num_experts}"
      )
    if self.capacity < 1:
      raise ValueError(
        f"capacity must be at least 1, got capacity={self.capacity}"
      )


class Slots(NamedTuple):
  """Rows that a split writes; M, out of range, where it writes nothing.

  Attributes:
    node: [] int32, the node that is split.
    children: [2] int32, its new children.
  """

  node: jax.Array
  children: jax.Array


def root_fields(size: Size, representative: jax.Array) -> dict[str, jax.Array]:
  """The shared fields of a tree that is only a root.

  Args:
    size: E and M.
    representative: [E] float32, the root's.

  Returns:
    dict from the name of a field of `Tree` to its value.
  """
  capacity = size.capacity
  return dict(
    parents=jnp.full([capacity], Tree.NO_PARENT, jnp.int32),
    children=jnp.full([capacity, 2], Tree.NO_CHILD, jnp.int32),
    depths=jnp.zeros([capacity], jnp.int32),
    is_leaf=jnp.arange(capacity, dtype=jnp.int32) == Tree.ROOT,
    representatives=jnp.tile(representative[None, :], (capacity, 1)),
    num_nodes=jnp.int32(1),
    full=jnp.asarray(False),
  )


def append_children(
  tree: Tree,
  node: jax.Array,
  *,
  enabled: jax.Array | bool,
  representatives: jax.Array,
  feasible: jax.Array,
) -> tuple[Slots, dict[str, jax.Array]]:
  """Appends two children to a leaf, in the shared fields.

  A refused split writes to index M, which `mode="drop"` ignores: under `vmap`
  a `lax.cond` would copy the whole tree through a select instead.

  Args:
    tree: the tree.
    node: [] int32, the node to split.
    enabled: [] bool, whether to split at all.
    representatives: [2, E] float32, the children's.
    feasible: [2] bool, whether the children's cells meet the simplex.

  Returns:
    where to write the fields that are not shared, and the shared fields.
  """
  capacity = tree.parents.shape[0]
  # A split is granted to a leaf that exists, if there is room for two.
  allocated = (node >= 0) & (node < tree.num_nodes)
  wanted = enabled & allocated & tree.is_leaf[node]
  granted = wanted & (tree.num_nodes + 2 <= capacity)
  # A refused split writes out of range.
  slots = Slots(
    node=jnp.where(granted, node, capacity),
    children=jnp.where(
      granted, tree.num_nodes + jnp.arange(2, dtype=jnp.int32), capacity
    ),
  )
  # The node becomes inner; a child without a feasible cell is no leaf.
  fields = dict(
    parents=tree.parents.at[slots.children].set(node, mode="drop"),
    children=tree.children.at[slots.node].set(slots.children, mode="drop"),
    depths=tree.depths.at[slots.children].set(
      tree.depths[node] + 1, mode="drop"
    ),
    is_leaf=tree.is_leaf.at[slots.children]
    .set(feasible, mode="drop")
    .at[slots.node]
    .set(False, mode="drop"),
    representatives=tree.representatives.at[slots.children].set(
      representatives, mode="drop"
    ),
    num_nodes=tree.num_nodes + jnp.where(granted, 2, 0),
    full=tree.full | (wanted & ~granted),
  )
  return slots, fields


def descend(
  tree: Tree,
  coordinates: jax.Array,
  *,
  step: Callable[..., tuple[jax.Array, jax.Array]],
  target: jax.Array | int = -1,
) -> jax.Array:
  """Walks from the root towards a point, down to a leaf or to `target`.

  Args:
    tree: the tree.
    coordinates: [E] float32, the point in the root's coordinates.
    step: `step(tree, node, coordinates) -> (side, coordinates)`: the child (0
      or 1) that holds the point, and the point in that child's coordinates.
    target: [] int32, where to stop even if it is not a leaf.

  Returns:
    [] int32, the node at which the walk stopped.
  """

  def is_on_the_way(carry: tuple[jax.Array, jax.Array]) -> jax.Array:
    node, _ = carry
    return (tree.children[node, 0] != Tree.NO_CHILD) & (node != target)

  def go_down(
    carry: tuple[jax.Array, jax.Array],
  ) -> tuple[jax.Array, jax.Array]:
    node, coordinates = carry
    side, coordinates = step(tree, node, coordinates)
    return tree.children[node, side], coordinates

  def go_down_often(
    carry: tuple[jax.Array, jax.Array],
  ) -> tuple[jax.Array, jax.Array]:
    for _ in range(_BURST):
      goes, below = is_on_the_way(carry), go_down(carry)
      carry = jax.tree.map(functools.partial(jnp.where, goes), below, carry)
    return carry

  start = alike((jnp.int32(Tree.ROOT), coordinates), tree, target)
  # A GPU asks the host before every turn of a loop whether there is one.
  end = jax.lax.platform_dependent(
    start,
    cuda=lambda x: jax.lax.while_loop(is_on_the_way, go_down_often, x),
    default=lambda x: jax.lax.while_loop(is_on_the_way, go_down, x),
  )
  return end[0]


def volume(tree: Tree, node: jax.Array) -> jax.Array:
  """The volume of a cell as a share of the root's, 2^-depth: cells halve."""
  return jnp.ldexp(jnp.float32(1), -tree.depths[node])
