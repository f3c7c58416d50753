"""Truncated HOO: hierarchical optimistic optimisation on a tree of cells.

Bubeck, Munos, Stoltz, Szepesvari, "X-Armed Bandits", JMLR 2011, section 4.2:
the form with a known horizon n and a limited depth. With N rewards of mean mu
in a cell of depth h,

  U = mu + sqrt(2 log n / N) + nu rho^h,

and the walk follows the largest B (see `tree_bounds`) to a leaf, plays it,
credits every cell on the way, and splits the leaf while its depth is below
D = ceil((log n / 2 - log(1 / nu)) / log(1 / rho)), where nu rho^D <= n^(-1/2).

Since n is fixed, U changes on the path only and a round costs O(depth).
Letters: V tasks, E experts, M capacity in nodes, G trees.
"""

from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from tanbr_jax.bandits.arms.slot_reward import slot_reward
from tanbr_jax.bandits.base import Bandit, Context, Decision, Feedback
from tanbr_jax.bandits.trees import tree_bounds, tree_statistics
from tanbr_jax.bandits.trees.tree_statistics import Forest, Shape
from tanbr_jax.partition import Partition


class HooState(NamedTuple):
  """State of `hoo`.

  Attributes:
    forest: the trees and what was observed in their cells.
    bounds: [M] float32, B.
  """

  forest: Forest
  bounds: jax.Array


class _Bound(NamedTuple):
  shape: Shape
  partition: Partition
  nu: jax.Array
  rho: jax.Array
  noise_scale: jax.Array
  log_horizon: jax.Array
  depth_limit: jax.Array


def _init(bound: _Bound, key) -> HooState:
  del key
  return HooState(*tree_bounds.sprout(bound.partition, bound.shape))


def _select(bound: _Bound, key, state: HooState, context: Context) -> Decision:
  del key
  tree = state.forest.tree
  leaf, path = tree_bounds.descend(
    tree,
    state.bounds,
    tree_statistics.tree_index(bound.shape, context),
    max_depth=bound.shape.max_depth,
    enters=lambda node: jnp.asarray(True),
  )
  aux = tree_statistics.describe(state.forest, leaf) | {"path": path}
  return Decision(tree.representatives[leaf], aux)


def _update(
  bound: _Bound,
  key,
  state: HooState,
  context: Context,
  decision: Decision,
  feedback: Feedback,
) -> HooState:
  del key
  slot = slot_reward(context.task_mix, feedback)
  path, leaf = decision.aux["path"], decision.aux["leaf"]
  index = tree_statistics.tree_index(bound.shape, context)
  forest = tree_statistics.record(
    state.forest, path, slot.value, index=index, seen=slot.seen
  )
  capacity = state.bounds.shape[0]
  written = jnp.where(slot.seen, path, capacity)
  bounds = tree_bounds.back_up(
    forest.tree, state.bounds, _uppers(bound, forest, path), written
  )
  depth = forest.tree.depths[leaf].astype(jnp.float32)
  splits = slot.seen & (depth < bound.depth_limit)
  return HooState(
    *tree_bounds.expand(
      forest, bounds, bound.partition, bound.shape, leaf, splits
    )
  )


def _uppers(bound: _Bound, forest: Forest, path: jax.Array) -> jax.Array:
  """U [D + 1] of the nodes on a path; padding gets some number."""
  visits = jnp.maximum(forest.visits[path], 1.0)
  depths = jnp.arange(path.shape[0], dtype=jnp.float32)
  width = jnp.sqrt(2 * bound.log_horizon / visits)
  smoothness = bound.nu * bound.rho**depths
  return forest.means[path] + bound.noise_scale * width + smoothness


def hoo_on(
  partition: Partition,
  shape: Shape,
  *,
  nu: chex.Numeric,
  rho: chex.Numeric,
  noise_scale: chex.Numeric,
  horizon: chex.Numeric,
  depth_limit: chex.Numeric | None = None,
) -> Bandit:
  """HOO on any partition; see `hoo`.

  Args:
    partition: whose representatives are played.
    shape: the number of trees and the greatest depth.
    nu: see `hoo`, as are the others.
    rho: likewise.
    noise_scale: likewise.
    horizon: likewise.
    depth_limit: D; None for the paper's.

  Raises:
    ValueError: if a number is out of range.
  """
  nu = tree_statistics.in_range("nu", nu, above=0)
  rho = tree_statistics.in_range("rho", rho, above=0, below=1)
  noise_scale = tree_statistics.in_range("noise_scale", noise_scale, above=0)
  horizon = tree_statistics.in_range("horizon", horizon, above=1)
  if depth_limit is None:
    # The paper's rewards have scale 1: what it compares with n^(-1/2) is nu
    # in units of the noise.
    ratio = jnp.log(nu / noise_scale)
    depth_limit = jnp.ceil((0.5 * jnp.log(horizon) + ratio) / -jnp.log(rho))
  bound = _Bound(
    shape=shape,
    partition=partition,
    nu=nu,
    rho=rho,
    noise_scale=noise_scale,
    log_horizon=jnp.log(horizon),
    depth_limit=jnp.asarray(depth_limit, jnp.float32),
  )
  return Bandit(
    Partial(_init, bound), Partial(_select, bound), Partial(_update, bound)
  )


def hoo(
  *,
  num_experts: int,
  num_tasks: int,
  cells: str = "simplex",
  context: str = "dominant_task",
  capacity: int = 4095,
  max_depth: int = 48,
  nu: chex.Numeric = 0.2,
  rho: chex.Numeric = 0.9,
  noise_scale: chex.Numeric = 0.02,
  horizon: chex.Numeric = 5000.0,
) -> Bandit:
  """Truncated HOO (Bubeck et al. 2011) on cells of the simplex.

  Args:
    num_experts: E.
    num_tasks: V.
    cells: "simplex" or "box", see `partition`.
    context: "none" for one tree that averages over the mixes it meets, or
      "dominant_task" for a tree for each task, see `tree_statistics`.
    capacity: M, nodes that all trees together may hold. A full pool goes on
      with the cells that it has; aux says `tree_full`.
    max_depth: greatest depth whatever D is; a round's cost grows with it.
    nu: rewards in a cell of depth h differ by at most nu rho^h.
    rho: in (0, 1).
    noise_scale: factor of the confidence width: the paper's is for rewards in
      [0, 1]; for rewards of standard deviation s take about s.
    horizon: n, rounds that the confidence is meant for.

  Returns:
    A `Bandit`; its decisions' aux holds leaf, depth, max_depth, num_leaves,
    tree_full, predicted_reward and leaf_visits, all scalars, and the path.

  Raises:
    ValueError: if an argument is out of range.
  """
  shape = tree_statistics.shape(
    num_tasks=num_tasks,
    context=context,
    capacity=capacity,
    max_depth=max_depth,
  )
  return hoo_on(
    tree_statistics.make_partition(cells, num_experts, capacity),
    shape,
    nu=nu,
    rho=rho,
    noise_scale=noise_scale,
    horizon=horizon,
  )
