"""Zooming: arms are activated where the active ones leave room.

Kleinberg, Slivkins, Upfal, "Multi-Armed Bandits in Metric Spaces", STOC 2008.
Every active arm v has a confidence radius and covers the ball of that radius;
when some point is covered by no ball, an arm is activated there. Each round
plays the active arm with the largest mean + 2 r(v). With N plays of v,

  r(v) = s sqrt(2 log n / (1 + N)),

the form for a known horizon n (the journal version, JACM 2019), which replaces
the phases of 2008, each of which forgets the ones before; s is the noise.

[R] Which point is uncovered is left to an oracle in the paper. Here a binary
tree is the oracle: the arms are the representatives of its nodes, and a leaf's
arm has to cover its cell. Once r(v) < L diam(cell) it does not, and the cell
is split and the arms of both children are activated; the old arm stays. So the
whole simplex is covered at all times, but for a cell whose fresh arm is still
to be played, at the price of more arms than a smallest cover needs. An arm
that was never played comes before all others, as with rewards in [0, 1] in the
paper, whatever the rewards' offset here.

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
from tanbr_jax.bandits.trees.tree_statistics import Forest, Plan, in_range
from tanbr_jax.bandits.wrappers.standardised import standardised
from tanbr_jax.checks import ranges
from tanbr_jax.checks.ranges import AtLeastTwo, Count, Positive, Range, Real
from tanbr_jax.partition import Partition


class ZoomingNumbers(NamedTuple):
  """Numbers of the algorithm, see `zooming`."""

  lipschitz: jax.Array
  noise_scale: jax.Array
  log_horizon: jax.Array


def _init(plan: Plan, key) -> Forest:
  return begin(tree_statistics.plant(plan), key)


def _radius(numbers: ZoomingNumbers, visits: jax.Array) -> jax.Array:
  width = jnp.sqrt(2 * numbers.log_horizon / (1 + visits))
  return numbers.noise_scale * width


def _select(
  plan: Plan, numbers: ZoomingNumbers, key, forest: Forest, context: Context
) -> Decision:
  del key
  index = tree_statistics.tree_index(plan, context)
  radii = forest.unit * _radius(numbers, forest.visits)
  scores = forest.means + 2 * radii
  scores = jnp.where(forest.visits > 0, scores, jnp.inf)
  arm = jnp.argmax(jnp.where(forest.owners == index, scores, -jnp.inf))
  arm = arm.astype(jnp.int32)
  aux = tree_statistics.describe(forest, arm)
  aux["exploration_bonus"] = 2 * radii[arm]
  return Decision(forest.tree.representatives[arm], aux)


def _update(
  plan: Plan,
  numbers: ZoomingNumbers,
  key,
  forest: Forest,
  context: Context,
  decision: Decision,
  feedback: Feedback,
) -> Forest:
  del key
  arm = decision.aux["leaf"]
  forest, _, seen = tree_statistics.credit(
    forest, plan, arm[None], context, feedback
  )
  diameter = plan.partition.diameter(forest.tree, arm)
  radius = _radius(numbers, forest.visits[arm])
  uncovered = seen & (radius < numbers.lipschitz * diameter)
  return tree_statistics.grow(forest, plan, arm, uncovered)[0]


@ranges.checked
def zooming(
  *,
  num_experts: AtLeastTwo,
  num_tasks: Count,
  cells: str | Partition = "simplex",
  context: str = "dominant_task",
  capacity: Annotated[int, Range(3)] = 1023,
  max_depth: Count = 48,
  lipschitz: Positive = 0.1,
  noise_scale: Positive = 0.1,
  horizon: Annotated[float, Range(1, ends="()")] = 5000.0,
  reward_range: tuple[Real, Real] | None = None,
) -> Bandit:
  """Zooming (Kleinberg et al. 2008) on cells of the simplex.

  Args:
    num_experts: E.
    num_tasks: V.
    cells: "simplex", "box" or a `Partition`, see `tree_statistics.make_plan`.
    context: "none" or "dominant_task", see there.
    capacity: M, the most arms; a round's cost grows with it.
    max_depth: greatest depth of an arm's cell.
    lipschitz: L, change of the reward, in widths of its range, for a unit of
      Euclidean distance between weights.
    noise_scale: s, about the rewards' standard deviation over the width of
      their range; the paper's is 1.
    horizon: n, rounds that the confidence is meant for.
    reward_range: (lowest, highest) reward of a slot; None for what was seen so
      far [R].

  Returns:
    A `Bandit`; its decisions' aux holds leaf (the arm's node, which may be an
    inner one), depth, max_depth, num_leaves, tree_full, predicted_reward,
    leaf_visits and exploration_bonus, all scalars.

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
  numbers = ZoomingNumbers(
    lipschitz=in_range("lipschitz", lipschitz, above=0),
    noise_scale=in_range("noise_scale", noise_scale, above=0),
    log_horizon=jnp.log(in_range("horizon", horizon, above=1)),
  )
  bandit = Bandit(
    Partial(_init, plan),
    Partial(_select, plan, numbers),
    Partial(_update, plan, numbers),
  )
  return standardised(bandit, reward_range=reward_range)
