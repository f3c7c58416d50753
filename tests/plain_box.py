"""A partition of [0, 1]^d without a simplex, for us and for PyXAB alike.

Bandits play a cell's centre. The longest side is halved, the first of equal
ones; in one dimension that is PyXAB's own BinaryPartition.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from PyXAB.partition.Partition import Partition as PyxabPartition

from tanbr_jax.bandits import Context, Feedback
from tanbr_jax.partition import Partition, Tree, base


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class PlainTree(Tree):
  lowers: jax.Array  # [M, d]
  uppers: jax.Array  # [M, d]


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class _Plain:
  dimension: int
  capacity: int

  def init(self):
    lowers = jnp.zeros([self.capacity, self.dimension])
    fields = base.root_fields(self, jnp.full([self.dimension], 0.5))
    return PlainTree(**fields, lowers=lowers, uppers=lowers + 1)

  def split(self, tree, node, enabled=True):
    lower, upper = tree.lowers[node], tree.uppers[node]
    axis = jnp.argmax(upper - lower)
    middle = 0.5 * (lower[axis] + upper[axis])
    lowers = jnp.stack([lower, lower.at[axis].set(middle)])
    uppers = jnp.stack([upper.at[axis].set(middle), upper])
    slots, fields = base.append_children(
      tree,
      node,
      enabled=enabled,
      representatives=0.5 * (lowers + uppers),
      feasible=jnp.ones([2], bool),
    )
    return PlainTree(
      **fields,
      lowers=tree.lowers.at[slots.children].set(lowers, mode="drop"),
      uppers=tree.uppers.at[slots.children].set(uppers, mode="drop"),
    )


def plain_box(dimension, capacity):
  size = _Plain(dimension, capacity)
  diameter = Partial(_diameter)
  return Partition(
    Partial(size.init), Partial(size.split), None, None, diameter, None
  )


def trees(dimension, capacity, max_depth):
  """What a tree bandit is told for one tree over such cells."""
  return dict(
    num_experts=max(2, dimension),  # not read where cells are given
    num_tasks=1,
    cells=plain_box(dimension, capacity),
    context="none",
    capacity=capacity,
    max_depth=max_depth,
    reward_range=(0.0, 1.0),
  )


def _diameter(tree, node):
  return jnp.linalg.norm(tree.uppers[node] - tree.lowers[node])


class LongestSide(PyxabPartition):
  def make_children(self, parent, newlayer=False):
    sides = [upper - lower for lower, upper in parent.get_domain()]
    axis = int(np.argmax(sides))
    lower, upper = parent.get_domain()[axis]
    middle = 0.5 * (lower + upper)
    children = []
    for place, side in enumerate([[lower, middle], [middle, upper]]):
      domain = [list(other) for other in parent.get_domain()]
      domain[axis] = side
      index = 2 * parent.get_index() - 1 + place
      children.append(self.node(parent.get_depth() + 1, index, parent, domain))
    parent.update_children(children)
    if newlayer:
      self.node_list.append(list(children))
      self.depth += 1
    else:
      self.node_list[parent.get_depth() + 1] += children


def wave(points):
  """A reward in [0, 1] with several maxima; [..., d] -> [...]."""
  first = points[..., 0]
  return (
    0.5
    + 0.3 * np.sin(13 * first) * np.sin(27 * first)
    - 0.2 * np.mean((points - 0.4) ** 2, axis=-1)
  )


def play_ours(bandit, noise, mean=wave):
  """The points [S, T, d] that a bandit plays under recorded noise [S, T]."""
  context = Context(jnp.ones(1))
  key = jax.random.key(0)

  def learn_and_select(state, decision, reward):
    feedback = Feedback(reward[None], jnp.ones(1, jnp.int32))
    state = bandit.update(key, state, context, decision, feedback)
    return state, bandit.select(key, state, context)

  def begin(_):
    state = bandit.init(key)
    return state, bandit.select(key, state, context)

  step = jax.jit(jax.vmap(learn_and_select))
  state, decision = jax.jit(jax.vmap(begin))(jnp.zeros(len(noise)))
  points = []
  for draws in noise.T:
    points.append(np.asarray(decision.merge_weights, np.float64))
    reward = jnp.asarray(mean(points[-1]) + draws, jnp.float32)
    state, decision = step(state, decision, reward)
  return np.stack(points, axis=1)


def play_pyxab(algorithm, noise, mean=wave):
  """The points [T, d] of an algorithm with PyXAB's interface."""
  points = []
  for t, draw in enumerate(noise, start=1):
    point = np.asarray(algorithm.pull(t), np.float64)
    algorithm.receive_reward(t, float(mean(point) + draw))
    points.append(point)
  return np.asarray(points)


def play_tasks(bandit, tasks, rewards):
  """Plays mixes of given dominant tasks: the state, (weights, tree_full)."""
  key = jax.random.key(0)

  def step(state, slot):
    task, reward = slot
    context = Context(0.6 * jax.nn.one_hot(task, 2) + 0.2)
    decision = bandit.select(key, state, context)
    weights = decision.merge_weights
    feedback = Feedback(
      jnp.full(2, reward - weights[0]), jnp.ones(2, jnp.int32)
    )
    state = bandit.update(key, state, context, decision, feedback)
    return state, (weights, decision.aux["tree_full"])

  def run(tasks, rewards):
    return jax.lax.scan(step, bandit.init(key), (tasks, rewards))

  return jax.jit(run)(tasks, rewards)
