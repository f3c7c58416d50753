"""StoSOO: stochastic simultaneous optimistic optimisation.

Valko, Carpentier, Munos, "Stochastic Simultaneous Optimistic Optimization",
ICML 2013. It needs no smoothness. A sweep goes down the depths h = 0 .. h_max;
at each it looks at the leaf with the largest

  b = mu + s sqrt(log(n k / delta) / (2 N))

and, if b is not below that of the leaf this sweep split last, samples the leaf
if it has fewer than k samples, and splits it otherwise. The depth that a sweep
may reach grows with the splits of the sweep itself [R]. After the budget of n
rounds it plays what it recommends: of the deepest nodes that were split the
one with the largest mean, which goes on being learnt [R].

It is made for a good last answer, not for little regret on the way: every
sweep samples all depths. [R] A leaf that cannot be split, for it is at h_max
or the pool is full, is sampled on. Between two samples there is at most one
split, whose children come next, so a round costs O(M).
Letters: V tasks, E experts, M capacity in nodes, G trees.
"""

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
from tanbr_jax.bandits.trees import tree_statistics
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
from tanbr_jax.partition import Partition, Tree


class StoSooState(NamedTuple):
  """State of `sto_soo`.

  Attributes:
    forest: the trees and what was observed in their cells.
    next_leaf: [G] int32, the leaf that a tree samples next.
    next_depth: [G] int32, where its sweep goes on after that.
    floor: [G] float32, b of the leaf that this sweep split last.
  """

  forest: Forest
  next_leaf: jax.Array
  next_depth: jax.Array
  floor: jax.Array


class StoSooNumbers(NamedTuple):
  """Numbers of the algorithm, see `sto_soo`; log_term is log(n k / delta)."""

  noise_scale: jax.Array
  budget: jax.Array
  max_samples: jax.Array
  depth_limit: jax.Array
  log_term: jax.Array


def _init(plan: Plan, key) -> StoSooState:
  count = plan.num_trees
  start = StoSooState(
    forest=tree_statistics.plant(plan),
    next_leaf=jnp.arange(count, dtype=jnp.int32),
    next_depth=jnp.ones(count, jnp.int32),
    floor=jnp.full(count, -UNBOUNDED, jnp.float32),
  )
  return begin(start, key)


def _recommend(forest: Forest, index: jax.Array) -> jax.Array:
  """The split node with the largest mean among the deepest ones, [] int32."""
  tree = forest.tree
  is_inner = tree.children[:, 0] != Tree.NO_CHILD
  is_inner = is_inner & (forest.owners == index)
  deepest = jnp.max(jnp.where(is_inner, tree.depths, 0))
  # The root stands in for a tree that has not split.
  allowed = is_inner & (tree.depths == deepest)
  best = jnp.argmax(jnp.where(allowed, forest.means, -UNBOUNDED))
  return jnp.where(jnp.any(allowed), best.astype(jnp.int32), index)


def _select(
  plan: Plan, numbers: StoSooNumbers, key, state: StoSooState, context: Context
) -> Decision:
  del key
  forest = state.forest
  index = tree_statistics.tree_index(plan, context)
  is_over = forest.rounds[index].astype(jnp.float32) >= numbers.budget
  node = jnp.where(is_over, _recommend(forest, index), state.next_leaf[index])
  aux = tree_statistics.describe(forest, node)
  return Decision(forest.tree.representatives[node], aux)


def _update(
  plan: Plan,
  numbers: StoSooNumbers,
  key,
  state: StoSooState,
  context: Context,
  decision: Decision,
  feedback: Feedback,
) -> StoSooState:
  del key
  forest, index, seen = tree_statistics.credit(
    state.forest, plan, decision.aux["leaf"][None], context, feedback
  )
  ongoing = forest.rounds[index].astype(jnp.float32) < numbers.budget
  state = state._replace(forest=forest)
  return _advance(plan, numbers, state, index, seen & ongoing)


def _advance(
  plan: Plan,
  numbers: StoSooNumbers,
  state: StoSooState,
  index: jax.Array,
  enabled: jax.Array,
) -> StoSooState:
  """Sweeps on to the next leaf to sample, over at most one split."""
  # The next leaf of this sweep.
  forest, depths = state.forest, state.forest.tree.depths
  scores = _scores(numbers, forest)
  is_mine = forest.tree.is_leaf & (forest.owners == index)
  floor = state.floor[index]
  reached = is_mine & (depths >= state.next_depth[index]) & (scores >= floor)
  goes_on = jnp.any(reached)
  # Where there is none the next sweep begins at the top.
  reached = jnp.where(goes_on, reached, is_mine)
  floor = jnp.where(goes_on, floor, -UNBOUNDED)
  depth = jnp.min(jnp.where(reached, depths, jnp.iinfo(jnp.int32).max))
  at_depth = reached & (depths == depth)
  leaf = jnp.argmax(jnp.where(at_depth, scores, -UNBOUNDED)).astype(jnp.int32)

  # Its split, if it has samples enough.
  is_done = forest.visits[leaf] >= numbers.max_samples
  is_done = is_done & (depth.astype(jnp.float32) < numbers.depth_limit)
  capacity = depths.shape[0]
  forest, slots, feasible = tree_statistics.grow(
    forest, plan, leaf, enabled & is_done
  )
  was_split = slots[0] < capacity
  # The sweep goes on to the unbounded scores below, of which older ones may
  # be left: the first of equal leaves is taken here as everywhere.
  fresh = is_mine & (depths == depth + 1) & (forest.visits == 0)
  child = jnp.where(feasible[0], slots[0], slots[1])
  older = jnp.argmax(fresh).astype(jnp.int32)
  child = jnp.where(jnp.any(fresh), older, child)
  place = jnp.where(enabled, index, plan.num_trees)
  return StoSooState(
    forest=forest,
    next_leaf=state.next_leaf.at[place].set(
      jnp.where(was_split, child, leaf), mode="drop"
    ),
    next_depth=state.next_depth.at[place].set(
      jnp.where(was_split, depth + 2, depth + 1), mode="drop"
    ),
    floor=state.floor.at[place].set(
      jnp.where(was_split, scores[leaf], floor), mode="drop"
    ),
  )


def _scores(numbers: StoSooNumbers, forest: Forest) -> jax.Array:
  """Returns b [M], UNBOUNDED without samples."""
  width = jnp.sqrt(0.5 * numbers.log_term / jnp.maximum(forest.visits, 1.0))
  width = forest.unit * numbers.noise_scale * width
  scores = forest.means + width
  return jnp.where(forest.visits > 0, scores, UNBOUNDED)


@ranges.checked
def sto_soo(
  *,
  num_experts: AtLeastTwo,
  num_tasks: Count,
  cells: str | Partition = "simplex",
  context: str = "dominant_task",
  capacity: Annotated[int, Range(3)] = 1023,
  max_depth: Count = 48,
  noise_scale: Positive = 0.1,
  horizon: Annotated[float, Range(2, ends="()")] = 200.0,
  max_samples: Positive | None = None,
  depth_limit: Positive | None = None,
  delta: Inner | None = None,
  reward_range: tuple[Real, Real] | None = None,
) -> Bandit:
  """StoSOO (Valko et al. 2013) on cells of the simplex.

  Args:
    num_experts: E.
    num_tasks: V.
    cells: "simplex", "box" or a `Partition`, see `tree_statistics.make_plan`.
    context: "none" or "dominant_task", see there.
    capacity: M, nodes that all trees together may hold; a round's cost grows
      with it.
    max_depth: greatest depth whatever `depth_limit` is.
    noise_scale: s, about the rewards' standard deviation over the width of
      their range; the paper's is 1.
    horizon: n, the slots after which a tree stops exploring and plays what it
      recommends; each tree counts its own. Before it, regret grows linearly.
    max_samples: k; None for ceil(n / log(n)^3).
    depth_limit: h_max; None for floor(sqrt(n / k)).
    delta: confidence in (0, 1); None for 1 / sqrt(n).
    reward_range: (lowest, highest) reward of a slot; None for what was seen so
      far [R].

  Returns:
    A `Bandit`; its decisions' aux holds leaf, depth, max_depth, num_leaves,
    tree_full, predicted_reward and leaf_visits, all scalars.

  Raises:
    ValueError: if an argument is out of range.
  """
  # All trees share one pool of nodes.
  plan = tree_statistics.make_plan(
    num_experts=num_experts,
    num_tasks=num_tasks,
    cells=cells,
    context=context,
    capacity=capacity,
    max_depth=max_depth,
    reward_range=reward_range,
  )
  # The paper's k, h_max and delta follow from the horizon. At n = 1 the
  # logarithm is 0, and k would be infinite.
  budget = in_range("horizon", horizon, above=2)
  if max_samples is None:
    max_samples = jnp.ceil(budget / jnp.log(budget) ** 3)
  samples = in_range("max_samples", max_samples, above=0)
  if depth_limit is None:
    depth_limit = jnp.floor(jnp.sqrt(budget / samples))
  if delta is None:
    delta = 1 / jnp.sqrt(budget)
  delta = in_range("delta", delta, above=0, below=1)
  # A new value of these does not compile again.
  numbers = StoSooNumbers(
    noise_scale=in_range("noise_scale", noise_scale, above=0),
    budget=budget,
    max_samples=samples,
    depth_limit=in_range("depth_limit", depth_limit, above=0),
    log_term=jnp.log(budget * samples / delta),
  )
  bandit = Bandit(
    Partial(_init, plan),
    Partial(_select, plan, numbers),
    Partial(_update, plan, numbers),
  )
  return standardised(bandit, reward_range=reward_range)
