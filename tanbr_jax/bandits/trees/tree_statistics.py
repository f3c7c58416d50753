"""Trees and their statistics, of the tree bandits without a network.

`hoo`, `hct`, `zooming` and `sto_soo` know nothing but the mean reward of the
cells they played. That reward is one number a slot, psi . r, so they are
context-free. Letters: V tasks, E experts, M capacity in nodes, G trees.

With `context="dominant_task"` there are G = V trees, and a slot belongs to the
tree of the task with the largest share in the mix [R]. All trees grow in one
pool of M nodes, of which nodes 0 .. G-1 are the roots: a round then touches a
few rows of the pool, and not a copy of one tree among V. It is the default: on
a drifting mix over eight tasks all four had less regret with it, each at its
best setting of those tried, than with one tree that ignores the mix.
"""

import dataclasses
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np

from tanbr_jax import partition as partitions
from tanbr_jax.bandits.arms.slot_reward import (
  RewardRange,
  make_range,
  slot_reward,
  widen,
  width,
)
from tanbr_jax.bandits.base import Context, Feedback, check_at_least
from tanbr_jax.checks.names import check_choice
from tanbr_jax.partition import Partition

CONTEXTS = ("none", "dominant_task")
NO_OWNER = -1
# Stands for infinity in a state, so that what is not finite there is a fault.
UNBOUNDED = float(np.finfo(np.float32).max)
# Fields of a tree that do not have a row for each node.
_SHARED = ("num_nodes", "full", "vertices")


class Forest(NamedTuple):
  """G trees in one pool, with what was observed in each node.

  Attributes:
    tree: of the partition; its nodes 0 .. G-1 are the roots.
    owners: [M] int32, the tree of a feasible node, otherwise NO_OWNER.
    visits: [M] float32, observations that were credited to a node. Float32
      counts exactly up to 2^24.
    means: [M] float32, their mean reward; 0 where there is none.
    rounds: [G] int32, slots that each tree has learnt from.
    num_leaves: [] int32, feasible leaves of all trees.
    max_depth: [] int32, depth of the deepest node.
    reward_range: of the slots' rewards, whose width is what smoothness and
      confidence widths are told in: the papers have rewards in [0, 1].
  """

  tree: Any
  owners: jax.Array
  visits: jax.Array
  means: jax.Array
  rounds: jax.Array
  num_leaves: jax.Array
  max_depth: jax.Array
  reward_range: RewardRange

  @property
  def num_rounds(self) -> jax.Array:
    """Returns the slots that the trees have learnt from together, []."""
    return jnp.sum(self.rounds, dtype=jnp.int32)

  @property
  def unit(self) -> jax.Array:
    """Returns the width of the rewards' range, []; 0 until it is known."""
    return width(self.reward_range)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Plan:
  """The cells, the number and the greatest depth of the trees; no array.

  Attributes:
    partition: whose representatives are played.
    num_trees: G.
    max_depth: D, the greatest depth of a node; a round's cost grows with it.
    has_range: whether rewards come in [0, 1]; otherwise their range is what was
      seen so far.
  """

  partition: Partition
  num_trees: int = dataclasses.field(metadata={"static": True})
  max_depth: int = dataclasses.field(metadata={"static": True})
  has_range: bool = dataclasses.field(metadata={"static": True})


def make_plan(
  *,
  num_experts: int,
  num_tasks: int,
  cells: str | Partition,
  context: str,
  capacity: int,
  max_depth: int,
  reward_range: tuple[float, float] | None,
) -> Plan:
  """Returns the plan of a forest from the arguments of all tree bandits.

  Args:
    num_experts: E.
    num_tasks: V.
    cells: "simplex" or "box", see `partition`; or any `Partition`.
    context: "none" for one tree that averages over the mixes it meets, or
      "dominant_task" for a tree for each task.
    capacity: M, nodes that all trees together may hold; that of `cells` where
      this is a `Partition`. A full pool goes on with the cells that it has;
      aux says `tree_full`.
    max_depth: D.
    reward_range: (lowest, highest) reward of a slot, which `standardised` makes
      0 and 1; None for what was seen so far.

  Raises:
    ValueError: if a name is unknown or a size is too small.
  """
  check_choice("context", context, CONTEXTS)
  check_at_least("num_tasks", num_tasks, 1)
  num_trees = num_tasks if context == "dominant_task" else 1
  if capacity < 3 * num_trees:
    raise ValueError(
      "capacity must hold a root and two children for each tree, got "
      f"capacity={capacity}, trees={num_trees}"
    )
  check_at_least("max_depth", max_depth, 1)
  if not isinstance(cells, Partition):
    known = {"simplex": partitions.simplex, "box": partitions.box}
    if cells not in known:
      raise ValueError(f"cells must be 'simplex' or 'box', got {cells=}")
    cells = known[cells](num_experts=num_experts, capacity=capacity)
  return Plan(cells, num_trees, max_depth, reward_range is not None)


def in_range(
  name: str,
  value: chex.Numeric,
  *,
  above: float,
  below: float = float("inf"),
) -> jax.Array:
  """Returns a number as float32 after checking above < value < below.

  A tracer, which `vmap` over a constructor makes, passes unchecked.

  Raises:
    ValueError: if the number is out of range.
  """
  if not isinstance(value, jax.core.Tracer) and not above < value < below:
    raise ValueError(
      f"{name} must be in ({above:g}, {below:g}), got {name}={value}"
    )
  return jnp.asarray(value, jnp.float32)


def plant(plan: Plan) -> Forest:
  """Returns G trees that are only roots."""
  tree = plan.partition.init()
  count = plan.num_trees
  copied = {
    field.name: getattr(tree, field.name)
    .at[:count]
    .set(getattr(tree, field.name)[tree.ROOT])
    for field in dataclasses.fields(tree)
    if field.name not in _SHARED
  }
  tree = dataclasses.replace(tree, **copied, num_nodes=jnp.int32(count))
  capacity = tree.depths.shape[0]
  nodes = jnp.arange(capacity, dtype=jnp.int32)
  return Forest(
    tree=tree,
    owners=jnp.where(nodes < count, nodes, NO_OWNER),
    visits=jnp.zeros(capacity, jnp.float32),
    means=jnp.zeros(capacity, jnp.float32),
    rounds=jnp.zeros(count, jnp.int32),
    num_leaves=jnp.int32(count),
    max_depth=jnp.int32(0),
    reward_range=make_range((0.0, 1.0) if plan.has_range else None),
  )


def tree_index(plan: Plan, context: Context) -> jax.Array:
  """The tree that a slot belongs to, [] int32, which is its root as well."""
  if plan.num_trees == 1:
    return jnp.int32(0)
  return jnp.argmax(context.task_mix).astype(jnp.int32)


class Credit(NamedTuple):
  """A forest after a slot.

  Attributes:
    forest: the trees and what was observed in their cells.
    index: [] int32, the tree that played.
    seen: [] bool; if false, the slot showed nothing and the forest stays.
  """

  forest: Forest
  index: jax.Array
  seen: jax.Array


def credit(
  forest: Forest,
  plan: Plan,
  nodes: jax.Array,
  context: Context,
  feedback: Feedback,
) -> Credit:
  """Credits a slot's reward to nodes.

  Args:
    forest: the trees.
    plan: of the forest.
    nodes: [N] int32, different from each other; those out of range are ignored.
    context: of the slot.
    feedback: of the slot.
  """
  slot = slot_reward(context.task_mix, feedback)
  index = tree_index(plan, context)
  capacity = forest.visits.shape[0]
  nodes = jnp.where(slot.seen, nodes, capacity)
  visits = forest.visits.at[nodes].add(1.0, mode="drop")
  # Padding reads the last row, and what comes of it is not written.
  old = forest.means[nodes]
  means = old + (slot.value - old) / jnp.maximum(visits[nodes], 1.0)
  forest = forest._replace(
    visits=visits,
    means=forest.means.at[nodes].set(means, mode="drop"),
    rounds=forest.rounds.at[index].add(slot.seen.astype(jnp.int32)),
    reward_range=widen(forest.reward_range, slot.value[None], slot.seen[None]),
  )
  return Credit(forest, index, slot.seen)


def grow(
  forest: Forest, plan: Plan, node: jax.Array, enabled: jax.Array
) -> tuple[Forest, jax.Array, jax.Array]:
  """Splits a leaf in two, unless it is too deep or the pool is full.

  Returns:
    the forest, where the children were written [2] int32 (M, out of range, if
    the split was refused), and whether their cells are feasible [2] bool.
  """
  before = forest.tree
  depth = before.depths[node]
  enabled = enabled & (depth < plan.max_depth)
  tree = plan.partition.split(before, node, enabled)
  granted = tree.num_nodes > before.num_nodes
  slots = jnp.where(granted, tree.children[node], tree.depths.shape[0])
  feasible = tree.is_leaf[slots]
  owners = jnp.where(feasible, forest.owners[node], NO_OWNER)
  added = jnp.sum(feasible, dtype=jnp.int32) - 1
  forest = forest._replace(
    tree=tree,
    owners=forest.owners.at[slots].set(owners, mode="drop"),
    num_leaves=forest.num_leaves + jnp.where(granted, added, 0),
    max_depth=jnp.maximum(forest.max_depth, jnp.where(granted, depth + 1, 0)),
  )
  return forest, slots, feasible


def describe(forest: Forest, node: jax.Array) -> dict[str, jax.Array]:
  """The entries of `Decision.aux` that all tree bandits have."""
  return {
    "leaf": node,
    "depth": forest.tree.depths[node],
    "max_depth": forest.max_depth,
    "num_leaves": forest.num_leaves,
    "tree_full": forest.tree.full,
    "predicted_reward": forest.means[node],
    "leaf_visits": forest.visits[node],
  }
