"""CATS: a tree policy over a continuous action, with smoothing.

Majzoubi, Zhang, Chari, Krishnamurthy, Langford and Slivkins, "Efficient
contextual bandits with continuous actions", NeurIPS 2020. The action is a
place a in [0, 1] on a path through the simplex. A binary tree with K = 2^D
leaves routes the context psi from the root to a leaf, a classifier at each
internal node; the action is uniform within h of the leaf's centre, or with
probability epsilon uniform in [0, 1], so that its density is

  p(a) = (1 - epsilon) S_h(a | leaf) + epsilon.

A leaf's estimated cost S_h(a | leaf) / p(a) cost is unbiased for the cost of
its smoothed action. From the bottom up, every node's classifier learns which
child is cheaper, weighted by the difference of what the children's subtrees
would pay; a node passes on the cost of the child that its updated classifier
picks. The paper leaves the online learner open. [R]: it is logistic
regression by AdaGrad (Duchi, Hazan and Singer 2011), linear in psi; centres
are (i + 1/2) / K and windows are cut at the ends of the path (the paper leaves
out the outermost leaves); all nodes of a level are updated at once, O(K) a
round, where the paper visits only the O(log K) nodes whose children differ
(the others' weight is 0: the result is the same). Letters: V tasks, E experts,
K leaves.
"""

from typing import Annotated, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from tanbr_jax.bandits.arms.simplex_path import SimplexPath, simplex_path, walk
from tanbr_jax.bandits.arms.slot_reward import (
  RewardRange,
  make_range,
  rescale,
  slot_reward,
  widen,
)
from tanbr_jax.bandits.base import (
  Bandit,
  Context,
  Decision,
  begin,
)
from tanbr_jax.bandits.wrappers.standardised import standardised
from tanbr_jax.checks import ranges
from tanbr_jax.checks.ranges import (
  AtLeastTwo,
  Chance,
  Count,
  Range,
  Real,
  Share,
)

_ROUNDING = 1e-5
_DEPTHS = Range(1, 16, "[]")


class CatsState(NamedTuple):
  """State of `cats`; node n has the children 2 n + 1 (left) and 2 n + 2.

  Attributes:
    classifiers: [K - 1, V]; a node sends psi to the right if the product with
      its row is positive.
    squares: [K - 1, V] sums of squared gradients.
    bounds: range of the slots' rewards.
  """

  classifiers: jax.Array
  squares: jax.Array
  bounds: RewardRange


class CatsNumbers(NamedTuple):
  """Numbers of the algorithm, see `cats`."""

  epsilon: chex.Numeric
  bandwidth: chex.Numeric
  learning_rate: chex.Numeric
  baseline: chex.Numeric


def route(classifiers: chex.Array, task_mix: chex.Array) -> jax.Array:
  """Returns the leaf [] int32 in [0, K) that the tree picks for a mix [V]."""
  num_nodes = classifiers.shape[0]
  node = jnp.int32(0)
  for _ in range((num_nodes + 1).bit_length() - 1):
    goes_right = jnp.dot(classifiers[node], task_mix) > 0
    node = 2 * node + 1 + goes_right.astype(jnp.int32)
  return node - num_nodes


def windows(num_leaves: int, bandwidth: chex.Numeric) -> jax.Array:
  """Returns [K, 2] the lowest and the highest smoothed action of each leaf."""
  centres = jnp.asarray((np.arange(num_leaves) + 0.5) / num_leaves, jnp.float32)
  low = jnp.maximum(centres - bandwidth, 0.0)
  return jnp.stack([low, jnp.minimum(centres + bandwidth, 1.0)], axis=-1)


def smoothed_density(edges: chex.Array, action: chex.Array) -> jax.Array:
  """Returns S_h(action | leaf) [...] for windows [..., 2]."""
  low, high = edges[..., 0], edges[..., 1]
  inside = (action >= low) & (action <= high)
  return jnp.where(inside, 1 / (high - low), 0.0)


def _select(
  path: SimplexPath, numbers: CatsNumbers, key, state, context: Context
) -> Decision:
  explore_key, action_key = jax.random.split(key)
  leaf = route(state.classifiers, context.task_mix)
  window = windows(state.classifiers.shape[0] + 1, numbers.bandwidth)[leaf]
  explores = jax.random.bernoulli(explore_key, numbers.epsilon)
  anywhere = jnp.array([0.0, 1.0], jnp.float32)
  low, high = jnp.where(explores, anywhere, window)
  place = jax.random.uniform(action_key, dtype=jnp.float32)
  action = low + (high - low) * place
  density = smoothed_density(window, action)
  density = (1 - numbers.epsilon) * density + numbers.epsilon
  aux = {"leaf": leaf, "action": action, "density": density}
  return Decision(walk(path, action), aux)


def _learn_level(
  numbers: CatsNumbers, state: CatsState, task_mix, costs, level
):
  """Updates the nodes of a level; returns the state and their costs."""
  nodes = slice(2**level - 1, 2 ** (level + 1) - 1)
  rows = state.classifiers[nodes]
  left, right = costs[0::2], costs[1::2]
  # AdaGrad takes a whole step however small the first gradient is: costs that
  # differ by rounding alone must not differ.
  same = jnp.isclose(left, right, rtol=_ROUNDING, atol=0.0)
  difference = jnp.where(same, 0.0, left - right)
  # The label is +1 where the right child is cheaper.
  label = jnp.sign(difference)
  slope = -difference * jax.nn.sigmoid(-label * (rows @ task_mix))
  gradient = slope[:, None] * task_mix[None, :]
  squares = state.squares[nodes] + gradient**2
  step = gradient * jax.lax.rsqrt(jnp.maximum(squares, 1e-20))
  rows = rows - numbers.learning_rate * step
  state = state._replace(
    classifiers=state.classifiers.at[nodes].set(rows),
    squares=state.squares.at[nodes].set(squares),
  )
  return state, jnp.where(rows @ task_mix > 0, right, left)


def _update(
  numbers: CatsNumbers, key, state: CatsState, context, decision, feedback
) -> CatsState:
  del key
  slot = slot_reward(context.task_mix, feedback)
  bounds = widen(state.bounds, slot.value[None], slot.seen[None])
  cost = 1 - rescale(bounds, slot.value) - numbers.baseline
  num_leaves = state.classifiers.shape[0] + 1
  action, density = decision.aux["action"], decision.aux["density"]
  edges = windows(num_leaves, numbers.bandwidth)
  costs = smoothed_density(edges, action) / density * cost
  # Without an observation all costs are equal, and nothing is learnt.
  costs = jnp.where(slot.seen, costs, 0.0)
  state = state._replace(bounds=bounds)
  for level in reversed(range(num_leaves.bit_length() - 1)):
    state, costs = _learn_level(numbers, state, context.task_mix, costs, level)
  return state


@ranges.checked
def cats(
  *,
  num_experts: AtLeastTwo,
  num_tasks: Count,
  path: chex.Array | None = None,
  depth: Annotated[int, _DEPTHS] | None = None,
  bandwidth: Annotated[float, Range(0, 0.5, "(]")] | None = None,
  epsilon: Chance = 0.1,
  learning_rate: Annotated[float, Range(0, 1e6, "(]")] = 1.0,
  baseline: Share = 0.0,
  reward_range: tuple[Real, Real] | None = None,
) -> Bandit:
  """CATS (Majzoubi et al. 2020) on a path through the simplex.

  Args:
    num_experts: E.
    num_tasks: V.
    path: [P, E] way points on the simplex; None for every expert in turn by
      way of the uniform merge (`simplex_path.default_points`).
    depth: D, for 2^D leaves; None for four a segment of the path or more.
    bandwidth: h in (0, 1/2], half the length of a leaf's window; None for half
      the mean length of the path's segments.
    epsilon: in (0, 1], the probability of a uniform action.
    learning_rate: of AdaGrad, in (0, 1e6].
    baseline: in [0, 1], taken from a slot's cost: it shifts all leaves'
      expected costs alike, and changes their variance [R]. 0 is the paper's.
    reward_range: (lowest, highest) reward of a slot, of which the cost, 1 minus
      the reward rescaled to [0, 1], is made; None for what was seen so far [R].

  Raises:
    ValueError: if an argument is out of range.
  """
  route_points = simplex_path(num_experts, path)
  num_segments = route_points.points.shape[0] - 1
  if depth is None:
    depth = (4 * num_segments - 1).bit_length()
  if bandwidth is None:
    bandwidth = 0.5 / num_segments
  _DEPTHS.check("depth", depth, is_integer=True)
  numbers = CatsNumbers(epsilon, bandwidth, learning_rate, baseline)
  zeros = jnp.zeros((2**depth - 1, num_tasks), jnp.float32)
  bounds = make_range(None if reward_range is None else (0.0, 1.0))
  start = CatsState(zeros, zeros, bounds)
  numbers = CatsNumbers(*map(jnp.float32, numbers))
  bandit = Bandit(
    Partial(begin, start),
    Partial(_select, route_points, numbers),
    Partial(_update, numbers),
  )
  return standardised(bandit, reward_range=reward_range)
