"""The paper's partition: a tree over boxes of the cube [0, 1]^E.

Tanbr (arXiv 2509.19781) covers the cube with a binary tree and takes from
each leaf one feasible weight vector, found by an optimisation under sum x = 1
and the budget. [R] The rest is a reconstruction: a box is split at the
midpoint of its longest side, the optimisation is the Euclidean projection of
the centre, and cells without feasible weights drop out.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from tanbr_jax.partition import base
from tanbr_jax.simplex.projection import project_on_box


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class BoxTree(base.Tree):
  """A binary tree of boxes; infeasible boxes are stored but never leaves."""

  lowers: jax.Array  # [M, E] float32
  uppers: jax.Array  # [M, E] float32
  split_axes: jax.Array  # [M] int32, the side that was split, or NO_CHILD


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class _BoxSize(base.Size):
  """E, M and the budget B, the most weights that may be above zero."""

  budget: int

  def __post_init__(self) -> None:
    super().__post_init__()
    if not 1 <= self.budget <= self.num_experts:
      raise ValueError(
        "budget must be in [1, num_experts], got "
        f"budget={self.budget}, num_experts={self.num_experts}"
      )


def box(
  *, num_experts: int, capacity: int, budget: int | None = None
) -> base.Partition:
  """The paper's partition of the cube, restricted to feasible weights.

  Feasible weights are x >= 0 with sum x = 1 and at most B = `budget` of them
  above zero. Cells are half-open, l < x <= u (and l <= x where l = 0), since
  ties go to the lower child; so each point is in one cell. A cell is feasible
  if it holds feasible weights: at most B coordinates are forced above zero (l
  > 0), sum l < 1, and the B largest u, the forced ones first, have sum u >= 1.
  A cell that only touches the simplex is thus kept where sum u = 1 (it holds
  the point u) and dropped where sum l = 1 (the point l is another cell's).

  [R] With B < E the support of a representative is a greedy choice: the forced
  coordinates, then those with the largest centres, the lowest index first
  among equals. The centre is projected on the cell with the others at zero.
  The test of feasibility is exact nevertheless, because outside the forced
  coordinates l = 0 and the largest centre is the largest u; but another
  support may have a projection nearer to the centre.

  Every leaf (`is_leaf`) is feasible, and `locate` returns nothing else: if
  rounding leads it, or if weights with more than B above zero lead it, to an
  infeasible child, it takes the sibling. For feasible weights it therefore
  returns the leaf whose cell holds them, up to the rounding of their sum; for
  other weights of the simplex it returns some leaf.

  `diameter` is the box's diagonal, a bound on that of its feasible part, and
  halves every E levels; `volume` is the box's, so that the volumes of the
  leaves add up to 1 only together with the dropped cells.

  Args:
    num_experts: E, at least 2.
    capacity: M, the most nodes that the tree can have; dropped cells count.
    budget: B in [1, E]; None for E.

  Returns:
    a `Partition` whose tree is a `BoxTree`.

  Raises:
    ValueError: if an argument is out of range.

  Example:
    >>> partition = box(num_experts=3, capacity=7)
    >>> tree = partition.split(partition.init(), 0)
    >>> int(partition.locate(tree, jnp.array([0.1, 0.6, 0.3])))
    1
  """
  budget = num_experts if budget is None else budget
  size = _BoxSize(num_experts=num_experts, capacity=capacity, budget=budget)
  return base.Partition(
    init=Partial(_init, size),
    split=Partial(_split, size),
    locate=Partial(_locate),
    contains=Partial(_contains),
    diameter=Partial(_diameter),
    volume=Partial(base.volume),
  )


def _init(size: _BoxSize) -> BoxTree:
  num_experts, capacity = size.num_experts, size.capacity
  lower = jnp.zeros([num_experts], jnp.float32)
  upper = jnp.ones([num_experts], jnp.float32)
  representative, _ = _represent(lower, upper, budget=size.budget)
  return BoxTree(
    **base.root_fields(size, representative),
    lowers=jnp.zeros([capacity, num_experts], jnp.float32),
    uppers=jnp.ones([capacity, num_experts], jnp.float32),
    split_axes=jnp.full([capacity], base.Tree.NO_CHILD, jnp.int32),
  )


def _split(
  size: _BoxSize,
  tree: BoxTree,
  node: jax.Array,
  enabled: jax.Array | bool = True,
) -> BoxTree:
  lower, upper = tree.lowers[node], tree.uppers[node]
  sides = upper - lower
  axis = jnp.argmax(sides).astype(jnp.int32)  # the lowest of equal ones
  middle = 0.5 * (lower[axis] + upper[axis])
  lowers = jnp.stack([lower, lower.at[axis].set(middle)])
  uppers = jnp.stack([upper.at[axis].set(middle), upper])
  represent = functools.partial(_represent, budget=size.budget)
  points, feasible = jax.vmap(represent)(lowers, uppers)
  root_point = tree.representatives[tree.ROOT]
  slots, fields = base.append_children(
    tree,
    node,
    enabled=enabled & (sides[axis] > tree.RESOLUTION),
    representatives=jnp.where(feasible[:, None], points, root_point[None, :]),
    feasible=feasible,
  )
  return BoxTree(
    **fields,
    lowers=tree.lowers.at[slots.children].set(lowers, mode="drop"),
    uppers=tree.uppers.at[slots.children].set(uppers, mode="drop"),
    split_axes=tree.split_axes.at[slots.node].set(axis, mode="drop"),
  )


def _represent(
  lower: jax.Array, upper: jax.Array, *, budget: int
) -> tuple[jax.Array, jax.Array]:
  """A cell's representative [E], and whether the cell is feasible."""
  center = 0.5 * (lower + upper)
  forced = lower > 0
  # The forced ones come first by themselves: the sides of a cell differ at most
  # by a factor of two, so that a forced centre is at least 3/4 of the longest
  # side and another one at most 1/2. Among equals `top_k` takes the lowest.
  _, chosen = jax.lax.top_k(center, budget)
  support = jnp.zeros_like(forced).at[chosen].set(True)
  upper = jnp.where(support, upper, 0)
  feasible = (forced.sum() <= budget) & (lower.sum() < 1) & (upper.sum() >= 1)
  center = jnp.where(support, center, 0)
  return project_on_box(center, lower=lower, upper=upper), feasible


def _step(
  tree: BoxTree, node: jax.Array, weights: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """The feasible child that holds the weights, which stay as they are."""
  axis = tree.split_axes[node]
  middle = tree.uppers[tree.children[node, 0], axis]
  side = (weights[axis] > middle).astype(jnp.int32)
  child = tree.children[node, side]
  is_inner = tree.children[child, 0] != tree.NO_CHILD
  # A feasible cell has a feasible child, as its points lie in one of them.
  return jnp.where(tree.is_leaf[child] | is_inner, side, 1 - side), weights


def _locate(tree: BoxTree, weights: jax.Array) -> jax.Array:
  return base.descend(tree, weights, step=_step)


def _contains(tree: BoxTree, node: jax.Array, weights: jax.Array) -> jax.Array:
  return base.descend(tree, weights, step=_step, target=node) == node


def _diameter(tree: BoxTree, node: jax.Array) -> jax.Array:
  return jnp.linalg.norm(tree.uppers[node] - tree.lowers[node])
