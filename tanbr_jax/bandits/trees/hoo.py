"""Truncated HOO: hierarchical optimistic optimisation on a tree of cells.

Bubeck, Munos, Stoltz, Szepesvari, "X-Armed Bandits", JMLR 2011, section 4.2:
the form with a known horizon n and a limited depth. With N rewards of mean mu
in a cell of depth h,

  U = mu + sqrt(2 log n / N) + nu rho^h,

and the walk follows the largest B (see `tree_bounds`) to a leaf, plays it,
credits every cell on the way, and splits the leaf while its depth is below
D = ceil((log n / 2 - log(1 / nu)) / log(1 / rho)), where nu rho^D <= n^(-1/2).

Since n is fixed, U changes on the path only and a round costs O(depth). [R] The
log2(T) rounds that are powers of two compute all anew: the rewards' range, in
whose width nu and the confidence width are told, grows with what was seen.
Letters: V tasks, E experts, M capacity in nodes, G trees.
"""

import functools
from typing import Annotated, NamedTuple

import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from tanbr_jax.bandits.base import (
  Bandit,
  Context,
  Decision,
  Feedback,
  begin,
)
from tanbr_jax.bandits.trees import tree_bounds, tree_statistics
from tanbr_jax.bandits.trees.tree_statistics import (
  UNBOUNDED,
  Forest,
  Plan,
  in_range,
)
from tanbr_jax.bandits.wrappers.standardised import standardised
from tanbr_jax.checks import ranges
from tanbr_jax.checks.ranges import (
  AtLeastTwo,
  Count,
  Inner,
  Positive,
  Range,
  Real,
)
from tanbr_jax.partition import Partition


class HooState(NamedTuple):
  """State of `hoo`.

  Attributes:
    forest: the trees and what was observed in their cells.
    bounds: [M] float32, B.
  """

  forest: Forest
  bounds: jax.Array


class HooNumbers(NamedTuple):
  """Numbers of the algorithm, see `hoo`."""

  nu: jax.Array
  rho: jax.Array
  noise_scale: jax.Array
  log_horizon: jax.Array
  depth_limit: jax.Array


def _init(plan: Plan, key) -> HooState:
  return begin(HooState(*tree_bounds.sprout(plan)), key)


def _select(plan: Plan, key, state: HooState, context: Context) -> Decision:
  del key
  tree = state.forest.tree
  leaf, path = tree_bounds.descend(
    tree,
    state.bounds,
    tree_statistics.tree_index(plan, context),
    max_depth=plan.max_depth,
    enters=lambda node: jnp.asarray(True),
  )
  aux = tree_statistics.describe(state.forest, leaf) | {"path": path}
  return Decision(tree.representatives[leaf], aux)


def _update(
  plan: Plan,
  numbers: HooNumbers,
  key,
  state: HooState,
  context: Context,
  decision: Decision,
  feedback: Feedback,
) -> HooState:
  del key
  path, leaf = decision.aux["path"], decision.aux["leaf"]
  forest, index, seen = tree_statistics.credit(
    state.forest, plan, path, context, feedback
  )
  capacity = state.bounds.shape[0]
  written = jnp.where(seen, path, capacity)
  depths = jnp.arange(path.shape[0], dtype=jnp.int32)
  uppers_of = functools.partial(_uppers, numbers, forest.unit)
  uppers = uppers_of(forest.means[path], forest.visits[path], depths)
  bounds = tree_bounds.back_up(forest.tree, state.bounds, uppers, written)
  depth = forest.tree.depths[leaf].astype(jnp.float32)
  splits = seen & (depth < numbers.depth_limit)
  forest, bounds = tree_bounds.expand(forest, bounds, plan, leaf, splits)
  # The range of the rewards may have grown since U was computed.
  due = seen & tree_bounds.is_due(forest.rounds[index])
  mine = forest.owners == index
  _, bounds = tree_bounds.rebuild(forest, bounds, bounds, uppers_of, mine, due)
  return HooState(forest, bounds)


def _uppers(numbers: HooNumbers, unit, means, visits, depths) -> jax.Array:
  """Returns U of nodes [...], UNBOUNDED without visits."""
  width = jnp.sqrt(2 * numbers.log_horizon / jnp.maximum(visits, 1.0))
  smoothness = numbers.nu * numbers.rho ** depths.astype(jnp.float32)
  uppers = means + unit * (numbers.noise_scale * width + smoothness)
  return jnp.where(visits > 0, uppers, UNBOUNDED)


@ranges.checked
def hoo(
  *,
  num_experts: AtLeastTwo,
  num_tasks: Count,
  cells: str | Partition = "simplex",
  context: str = "dominant_task",
  capacity: Annotated[int, Range(3)] = 4095,
  max_depth: Count = 48,
  nu: Positive = 0.2,
  rho: Inner = 0.9,
  noise_scale: Positive = 0.02,
  horizon: Annotated[float, Range(1, ends="()")] = 5000.0,
  depth_limit: Positive | None = None,
  reward_range: tuple[Real, Real] | None = None,
) -> Bandit:
  """Truncated HOO (Bubeck et al. 2011) on cells of the simplex.

  Args:
    num_experts: E.
    num_tasks: V.
    cells: "simplex", "box" or a `Partition`, see `tree_statistics.make_plan`.
    context: "none" or "dominant_task", see there.
    capacity: M, nodes that all trees together may hold.
    max_depth: greatest depth whatever D is; a round's cost grows with it.
    nu: rewards in a cell of depth h differ by at most nu rho^h, in widths of
      their range.
    rho: in (0, 1).
    noise_scale: factor of the confidence width, about the rewards' standard
      deviation over the width of their range; the paper's is 1.
    horizon: n, rounds that the confidence is meant for.
    depth_limit: D; None for the paper's.
    reward_range: (lowest, highest) reward of a slot; None for what was seen so
      far [R].

  Returns:
    A `Bandit`; its decisions' aux holds leaf, depth, max_depth, num_leaves,
    tree_full, predicted_reward and leaf_visits, all scalars, and the path.

  Raises:
    ValueError: if an argument is out of range.
  """
  plan = tree_statistics.make_plan(
    num_experts=num_experts,
    num_tasks=num_tasks,
    cells=cells,
    context=context,
    capacity=capacity,
    max_depth=max_depth,
    reward_range=reward_range,
  )
  nu = in_range("nu", nu, above=0)
  rho = in_range("rho", rho, above=0, below=1)
  noise_scale = in_range("noise_scale", noise_scale, above=0)
  log_horizon = jnp.log(in_range("horizon", horizon, above=1))
  if depth_limit is None:
    # The paper's rewards have scale 1: what it compares with n^(-1/2) is nu
    # in units of the noise.
    ratio = jnp.log(nu / noise_scale)
    depth_limit = jnp.ceil((0.5 * log_horizon + ratio) / -jnp.log(rho))
  numbers = HooNumbers(
    nu, rho, noise_scale, log_horizon, jnp.asarray(depth_limit, jnp.float32)
  )
  bandit = Bandit(
    Partial(_init, plan),
    Partial(_select, plan),
    Partial(_update, plan, numbers),
  )
  return standardised(bandit, reward_range=reward_range)
