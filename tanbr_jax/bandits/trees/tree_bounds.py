"""Optimistic bounds on a tree, as HOO and HCT keep them.

Every node has an upper bound U of the rewards in its cell, and the tighter

  B = U of a leaf,  B = min(U, max over the children of B) of an inner node.

A round changes U on the path that it went down and nowhere else, so B has to
be mended on that path only. Letters: M capacity in nodes, D greatest depth.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from tanbr_jax.bandits.trees import tree_statistics
from tanbr_jax.bandits.trees.tree_statistics import UNBOUNDED, Forest, Plan
from tanbr_jax.partition import Tree
from tanbr_jax.simplex.varying import alike


def sprout(plan: Plan) -> tuple[Forest, jax.Array]:
  """Returns trees whose roots are split, as both papers begin, and B [M]."""
  forest = tree_statistics.plant(plan)
  bounds = jnp.full(forest.owners.shape, UNBOUNDED, jnp.float32)

  def split_root(root, carry):
    return expand(*carry, plan, root, jnp.asarray(True))

  # A Python loop would compile one split for each tree.
  return jax.lax.fori_loop(0, plan.num_trees, split_root, (forest, bounds))


def expand(
  forest: Forest,
  bounds: jax.Array,
  plan: Plan,
  node: jax.Array,
  enabled: jax.Array,
) -> tuple[Forest, jax.Array]:
  """Splits a leaf; B is unbounded in a new cell, from below if infeasible."""
  forest, slots, feasible = tree_statistics.grow(forest, plan, node, enabled)
  fresh = jnp.where(feasible, UNBOUNDED, -UNBOUNDED)
  return forest, bounds.at[slots].set(fresh, mode="drop")


def descend(
  tree: Tree,
  bounds: jax.Array,
  root: jax.Array,
  *,
  max_depth: int,
  enters: Callable[[jax.Array], jax.Array],
) -> tuple[jax.Array, jax.Array]:
  """Walks from a root towards the child with the largest B.

  Of equal children the upper one is taken [R]: HOO breaks ties at random, HCT
  does not say.

  Args:
    tree: the tree.
    bounds: [M] float32, B.
    root: [] int32.
    max_depth: D.
    enters: `enters(node) -> bool`, whether the walk may go below a node; it
      stops at leaves in any case.

  Returns:
    the node [] where the walk stopped, and the path [D + 1] int32 from the
    root to it, padded with M.
  """
  capacity = tree.depths.shape[0]

  def goes_on(carry):
    node, _ = carry
    return (tree.children[node, 0] != Tree.NO_CHILD) & enters(node)

  # The carry is small on purpose: under `vmap` every step selects it anew for
  # the walks that have ended.
  def step(carry):
    node, path = carry
    lower, upper = tree.children[node, 0], tree.children[node, 1]
    node = jnp.where(bounds[upper] >= bounds[lower], upper, lower)
    return node, path.at[tree.depths[node]].set(node)

  path = jnp.full(max_depth + 1, capacity, jnp.int32).at[0].set(root)
  start = alike((root, path), tree, bounds)
  return jax.lax.while_loop(goes_on, step, start)


def back_up(
  tree: Tree, bounds: jax.Array, uppers: jax.Array, path: jax.Array
) -> jax.Array:
  """Mends B on a path after its nodes' U have changed.

  Up the path each node applies x -> min(U, max(S, x)) to the B of the node
  below, where S is the B of that node's sibling. Such functions compose to one
  of the same form, so that an associative scan replaces the walk.

  Args:
    tree: the tree.
    bounds: [M] float32, B.
    uppers: [D + 1] float32, U of the nodes on the path.
    path: [D + 1] int32, padded with M.

  Returns:
    [M] float32, B.
  """
  capacity = bounds.shape[0]
  is_node = path < capacity
  below = jnp.append(path[1:], jnp.int32(capacity))
  children = tree.children[path]
  # Neither a child of the last node nor a missing one is on the path.
  others = (children != below[:, None]) & (children != Tree.NO_CHILD)
  floors = jnp.max(bounds[children], axis=1, where=others, initial=-UNBOUNDED)
  is_leaf = children[:, 0] == Tree.NO_CHILD
  floors = jnp.where(is_leaf, UNBOUNDED, floors)
  floors = jnp.where(is_node, floors, -UNBOUNDED)
  ceilings = jnp.where(is_node, uppers, UNBOUNDED)

  def compose(inner, outer):
    (low, high), (outer_low, outer_high) = inner, outer
    return (
      jnp.maximum(outer_low, low),
      jnp.minimum(outer_high, jnp.maximum(outer_low, high)),
    )

  low, high = jax.lax.associative_scan(
    compose, (floors, ceilings), reverse=True
  )
  return bounds.at[path].set(jnp.minimum(high, low), mode="drop")


def is_due(num_rounds: jax.Array) -> jax.Array:
  """Whether the round after so many is a power of two, [] bool."""
  coming = num_rounds + 1
  return (coming & (coming - 1)) == 0


def rebuild(
  forest: Forest,
  uppers: jax.Array,
  bounds: jax.Array,
  uppers_of: Callable[..., jax.Array],
  mine: jax.Array,
  due: jax.Array,
) -> tuple[jax.Array, jax.Array]:
  """Computes U and B anew in some trees.

  A loop of no step does nothing. A `cond` would be a select under `vmap`, which
  copies all arrays in every round.

  Args:
    forest: the trees.
    uppers: [M] float32, U.
    bounds: [M] float32, B.
    uppers_of: `uppers_of(means, visits, depths) -> U` of nodes [M], UNBOUNDED
      without visits.
    mine: [M] bool, all feasible nodes of these trees.
    due: [] bool; if false, nothing changes.

  Returns:
    [M] float32, U, and [M] float32, B.
  """
  tree = forest.tree
  rows = (
    mine,
    forest.means,
    forest.visits,
    tree.depths,
    tree.children,
  )

  def step(number, carry):
    uppers, bounds = carry
    # What does not depend on the step would be computed before the loop, in
    # every round, were it not tied to the step by this barrier.
    (mine, means, visits, depths, children), _ = jax.lax.optimization_barrier(
      (rows, number)
    )
    fresh = uppers_of(means, visits, depths)
    uppers = jnp.where(mine, fresh, uppers)
    below = jnp.max(bounds[children], axis=1)
    below = jnp.where(children[:, 0] != Tree.NO_CHILD, below, UNBOUNDED)
    found = jnp.minimum(uppers, below)
    return uppers, jnp.where(mine, found, bounds)

  # After step s the B of the nodes less than s above all leaves are right.
  steps = jnp.where(due, forest.max_depth + 1, 0)
  return jax.lax.fori_loop(0, steps, step, (uppers, bounds))
