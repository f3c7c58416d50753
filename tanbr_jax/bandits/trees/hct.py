"""HCT for independent rewards: a high-confidence tree.

Azar, Lazaric, Brunskill, "Online Stochastic Optimization under Correlated
Bandit Feedback", ICML 2014, algorithm HCT-iid. In round t a cell of depth h
with N rewards of mean mu, which are those of plays of the cell itself, has

  U = mu + nu rho^h + sqrt(c^2 log(1 / delta') / N),
  delta' = min(1/2, c1 delta / t+), c1 = (rho / (3 nu))^(1/8),
  t+ = 2^ceil(log2 t).

The walk follows the largest B (see `tree_bounds`) below every cell with
N >= tau_h = ceil(c^2 log(1 / delta') rho^(-2 h) / nu^2), plays where it stops,
and splits a leaf once it has tau_h rewards. When t is a power of two U is
computed anew in all cells. [R] Within a round the same t is used throughout:
the paper counts t up between the reward and U. [R] Several trees count their
rounds together, which makes none too sure. [R] nu and c are told in widths
of the rewards' range so far, where the paper's rewards lie in [0, 1].

A round costs O(depth), but for the log2(T) rounds that compute all anew.
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


class HctState(NamedTuple):
  """State of `hct`.

  Attributes:
    forest: the trees and what was observed in their cells.
    bounds: [M] float32, B.
    uppers: [M] float32, U as last computed; UNBOUNDED where nothing
      was seen.
  """

  forest: Forest
  bounds: jax.Array
  uppers: jax.Array


class HctNumbers(NamedTuple):
  """Numbers of the algorithm, see `hct`."""

  nu: jax.Array
  rho: jax.Array
  c: jax.Array
  delta: jax.Array


def _init(plan: Plan, key) -> HctState:
  forest, bounds = tree_bounds.sprout(plan)
  return begin(HctState(forest, bounds, jnp.full_like(bounds, UNBOUNDED)), key)


def _log_term(numbers: HctNumbers, round_index: jax.Array) -> jax.Array:
  """Returns log(1 / delta') in round t, counted from 1."""
  # t+ in integers: a logarithm could miss a power of two by rounding.
  bits = 32 - jax.lax.clz(round_index - 1)
  doubled = jnp.left_shift(jnp.int32(1), bits).astype(jnp.float32)
  c1 = (numbers.rho / (3 * numbers.nu)) ** 0.125
  return jnp.maximum(jnp.log(2.0), jnp.log(doubled / (c1 * numbers.delta)))


def _threshold(numbers: HctNumbers, depth: jax.Array, log_term) -> jax.Array:
  """Returns tau_h [] float32; a root's is 0, it is never played."""
  scale = numbers.c**2 * log_term / numbers.nu**2
  height = depth.astype(jnp.float32)
  return jnp.where(
    depth == 0, 0.0, jnp.ceil(scale * numbers.rho ** (-2 * height))
  )


def _upper(
  numbers: HctNumbers, unit, log_term, mean, visits, depth
) -> jax.Array:
  """Returns U of nodes [...], UNBOUNDED without visits."""
  width = numbers.c * jnp.sqrt(log_term / jnp.maximum(visits, 1.0))
  smoothness = numbers.nu * numbers.rho ** depth.astype(jnp.float32)
  upper = mean + unit * (smoothness + width)
  return jnp.where(visits > 0, upper, UNBOUNDED)


def _select(
  plan: Plan, numbers: HctNumbers, key, state: HctState, context: Context
) -> Decision:
  del key
  forest = state.forest
  tree = forest.tree
  index = tree_statistics.tree_index(plan, context)
  log_term = _log_term(numbers, forest.num_rounds + 1)
  node, path = tree_bounds.descend(
    tree,
    state.bounds,
    index,
    max_depth=plan.max_depth,
    enters=lambda node: (
      forest.visits[node] >= _threshold(numbers, tree.depths[node], log_term)
    ),
  )
  aux = tree_statistics.describe(forest, node) | {"path": path}
  return Decision(tree.representatives[node], aux)


def _update(
  plan: Plan,
  numbers: HctNumbers,
  key,
  state: HctState,
  context: Context,
  decision: Decision,
  feedback: Feedback,
) -> HctState:
  del key
  path, node = decision.aux["path"], decision.aux["leaf"]
  forest, _, seen = tree_statistics.credit(
    state.forest, plan, node[None], context, feedback
  )
  # U of the node that was played, and B of those above it.
  log_term = _log_term(numbers, state.forest.num_rounds + 1)
  capacity = state.bounds.shape[0]
  depth, visits = forest.tree.depths[node], forest.visits[node]
  upper_of = functools.partial(_upper, numbers, forest.unit)
  upper = upper_of(log_term, forest.means[node], visits, depth)
  uppers = state.uppers.at[jnp.where(seen, node, capacity)].set(
    upper, mode="drop"
  )
  bounds = tree_bounds.back_up(
    forest.tree, state.bounds, uppers[path], jnp.where(seen, path, capacity)
  )
  # The split, and what a round that is a power of two computes anew.
  splits = seen & (visits >= _threshold(numbers, depth, log_term))
  forest, bounds = tree_bounds.expand(forest, bounds, plan, node, splits)
  # All trees in the same round: if each had a clock of its own, then under
  # `vmap`, where every seed waits for any of them, hardly a round would be free
  # of this.
  log_term = _log_term(numbers, forest.num_rounds + 1)
  uppers, bounds = tree_bounds.rebuild(
    forest,
    uppers,
    bounds,
    functools.partial(upper_of, log_term),
    forest.owners != tree_statistics.NO_OWNER,
    seen & tree_bounds.is_due(forest.num_rounds),
  )
  return HctState(forest, bounds, uppers)


@ranges.checked
def hct(
  *,
  num_experts: AtLeastTwo,
  num_tasks: Count,
  cells: str | Partition = "simplex",
  context: str = "dominant_task",
  capacity: Annotated[int, Range(3)] = 4095,
  max_depth: Count = 48,
  nu: Positive = 0.2,
  rho: Inner = 0.9,
  c: Positive = 0.05,
  delta: Inner = 0.01,
  reward_range: tuple[Real, Real] | None = None,
) -> Bandit:
  """HCT-iid (Azar et al. 2014) on cells of the simplex.

  Args:
    num_experts: E.
    num_tasks: V.
    cells: "simplex", "box" or a `Partition`, see `tree_statistics.make_plan`.
    context: "none" or "dominant_task", see there.
    capacity: M, nodes that all trees together may hold.
    max_depth: greatest depth; a round's cost grows with it.
    nu: rewards in a cell of depth h differ by at most nu rho^h, in widths of
      their range.
    rho: in (0, 1).
    c: factor of the confidence width, about the rewards' standard deviation
      over the width of their range.
    delta: confidence, in (0, 1).
    reward_range: (lowest, highest) reward of a slot; None for what was seen so
      far [R].

  Returns:
    A `Bandit`; its decisions' aux holds leaf, depth, max_depth, num_leaves,
    tree_full, predicted_reward and leaf_visits, all scalars, and the path. A
    "leaf" may be an inner node here.

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
  numbers = HctNumbers(
    nu=in_range("nu", nu, above=0),
    rho=in_range("rho", rho, above=0, below=1),
    c=in_range("c", c, above=0),
    delta=in_range("delta", delta, above=0, below=1),
  )
  bandit = Bandit(
    Partial(_init, plan),
    Partial(_select, plan, numbers),
    Partial(_update, plan, numbers),
  )
  return standardised(bandit, reward_range=reward_range)
