"""The native partition: simplices that are bisected at their longest edge.

[R] The paper covers a cube (see `box`); here the root is the simplex itself,
given by its E unit vertices. A cell is split at the midpoint of its longest
edge, its representative is its barycentre, and every cell is feasible. After
every E - 1 levels the diameter has shrunk at least by sqrt(3) / 2 (Kearfott
1978, "A proof of convergence and an error bound for the method of bisection
in R^n").
"""

import dataclasses

import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from tanbr_jax.partition import base

# Edges that differ by less count as equally long, so that rounding does not
# decide between them (on CPU the squares of dyadic corners are mostly exact, in
# a TPU's products of bfloat16 parts they are not). Relative, on squares.
_TIE = 1e-5


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class SimplexTree(base.Tree):
  """A binary tree of simplices.

  Every split adds one vertex, so the vertices are kept in a pool and a cell
  is E indices: O(M E) memory where the cells themselves would be O(M E^2).
  """

  vertices: jax.Array  # [E + M // 2, E] float32, the unit vertices first
  vertex_ids: jax.Array  # [M, E] int32, the corners of each cell
  split_slots: jax.Array  # [M, 2] int32, the ends of the edge that was split


def simplex(*, num_experts: int, capacity: int) -> base.Partition:
  """The partition of the simplex by longest-edge bisection.

  The split of edge (a, b), with a before b, at its midpoint m makes the lower
  child, in which m takes b's place, and the upper one, in which it takes a's.
  Of equally long edges the first in lexicographic order of slots is split.

  Args:
    num_experts: E, at least 2.
    capacity: M, the most nodes that the tree can have.

  Returns:
    a `Partition` whose tree is a `SimplexTree`.

  Raises:
    ValueError: if `num_experts` or `capacity` is too small.

  Example:
    >>> partition = simplex(num_experts=3, capacity=7)
    >>> tree = partition.split(partition.init(), 0)
    >>> int(partition.locate(tree, jnp.array([0.1, 0.6, 0.3])))
    2
  """
  size = base.Size(num_experts=num_experts, capacity=capacity)
  return base.Partition(
    init=Partial(_init, size),
    split=Partial(_split),
    locate=Partial(_locate),
    contains=Partial(_contains),
    diameter=Partial(_diameter),
    volume=Partial(base.volume),
  )


def _init(size: base.Size) -> SimplexTree:
  num_experts, capacity = size.num_experts, size.capacity
  center = jnp.full([num_experts], 1 / num_experts, jnp.float32)
  vertices = jnp.zeros([num_experts + capacity // 2, num_experts], jnp.float32)
  ids = jnp.zeros([capacity, num_experts], jnp.int32)
  return SimplexTree(
    **base.root_fields(size, center),
    vertices=vertices.at[:num_experts].set(
      jnp.eye(num_experts, dtype=jnp.float32)
    ),
    vertex_ids=ids.at[base.Tree.ROOT].set(
      jnp.arange(num_experts, dtype=jnp.int32)
    ),
    split_slots=jnp.full([capacity, 2], base.Tree.NO_CHILD, jnp.int32),
  )


def _split(
  tree: SimplexTree, node: jax.Array, enabled: jax.Array | bool = True
) -> SimplexTree:
  cell_ids = tree.vertex_ids[node]
  cell = tree.vertices[cell_ids]
  edge, length = _longest_edge(cell)
  midpoint = 0.5 * (cell[edge[0]] + cell[edge[1]])
  # The lower child replaces edge[1], the upper one edge[0].
  replaced = edge[::-1]
  child_cells = jax.vmap(lambda slot: cell.at[slot].set(midpoint))(replaced)
  slots, fields = base.append_children(
    tree,
    node,
    enabled=enabled & (length > tree.RESOLUTION),
    representatives=child_cells.mean(axis=1),
    feasible=jnp.ones([2], bool),
  )
  # Node 2k + 1 and its sibling are made by split k, which adds vertex E + k.
  new_id = cell.shape[0] + (tree.num_nodes - 1) // 2
  child_ids = jax.vmap(lambda slot: cell_ids.at[slot].set(new_id))(replaced)
  granted = slots.node < tree.parents.shape[0]
  new_id = jnp.where(granted, new_id, tree.vertices.shape[0])
  return SimplexTree(
    **fields,
    vertices=tree.vertices.at[new_id].set(midpoint, mode="drop"),
    vertex_ids=tree.vertex_ids.at[slots.children].set(child_ids, mode="drop"),
    split_slots=tree.split_slots.at[slots.node].set(edge, mode="drop"),
  )


def _longest_edge(cell: jax.Array) -> tuple[jax.Array, jax.Array]:
  """The slots [2] and the length [] of the longest edge of a cell [E, E]."""
  # Lengths come from one Gram matrix. Taken from the first corner it is of
  # the cell's own size; taken from the origin it would cancel in small cells.
  # TF32 or bfloat16 products would be too coarse, hence the precision.
  arms = cell - cell[:1]
  gram = jnp.matmul(arms, arms.T, precision=jax.lax.Precision.HIGHEST)
  norms = jnp.diagonal(gram)
  squares = norms[:, None] + norms[None, :] - 2 * gram
  upper = jnp.triu(jnp.ones(cell.shape, bool), k=1)
  longest = jnp.max(squares, where=upper, initial=0)
  first = jnp.argmax(upper & (squares >= (1 - _TIE) * longest))
  edge = jnp.stack(jnp.divmod(first, cell.shape[0])).astype(jnp.int32)
  return edge, jnp.linalg.norm(cell[edge[0]] - cell[edge[1]])


def _step(
  tree: SimplexTree, node: jax.Array, coordinates: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """The child that holds a point, by its barycentric coordinates in the cell.

  With a = 2 m - b and b = 2 m - a, the share p of a and q of b become p - q
  of a and 2 q of m if p >= q, and 2 p of m and q - p of b otherwise: no linear
  system is solved on the way down.
  """
  edge = tree.split_slots[node]
  p, q = coordinates[edge[0]], coordinates[edge[1]]
  is_upper = p < q
  lower, upper = jnp.stack([p - q, 2 * q]), jnp.stack([2 * p, q - p])
  coordinates = coordinates.at[edge].set(jnp.where(is_upper, upper, lower))
  return is_upper.astype(jnp.int32), coordinates


def _locate(tree: SimplexTree, weights: jax.Array) -> jax.Array:
  # In the root the barycentric coordinates are the weights themselves.
  return base.descend(tree, weights, step=_step)


def _contains(
  tree: SimplexTree, node: jax.Array, weights: jax.Array
) -> jax.Array:
  return base.descend(tree, weights, step=_step, target=node) == node


def _diameter(tree: SimplexTree, node: jax.Array) -> jax.Array:
  return _longest_edge(tree.vertices[tree.vertex_ids[node]])[1]
