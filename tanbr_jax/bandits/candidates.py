"""Candidate merge weights: what a bandit scores in a round.

  dirichlet   N fresh draws of Dirichlet(1), uniform on the simplex
  tree        the leaves of a partition that splits where it is played, up to N
  ascent      where gradient ascent of the score begins: vertices, centre, the
              weights played last, N fresh draws of Dirichlet(1/2)

Letters: E experts, N candidates, M tree capacity.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from tanbr_jax import partition as partitions
from tanbr_jax.bandits.base import Decision, Shape, check_at_least
from tanbr_jax.bandits.trees import tree_growth
from tanbr_jax.checks import ranges
from tanbr_jax.checks.names import check_choice
from tanbr_jax.checks.ranges import AtLeastTwo, Inner, Positive, Whole
from tanbr_jax.partition import Partition
from tanbr_jax.simplex.points import dirichlet_half, dirichlet_one

# How many there are when a bandit is not told.
DEFAULT_SIZES = {"dirichlet": 20, "tree": 128, "ascent": 32}


class Source(NamedTuple):
  """A source of candidates as four pure functions; a pytree.

  Attributes:
    init: `init() -> state`.
    propose: `propose(key, state) -> (points [N, E], active [N] bool)`.
    describe: `describe(state, candidate, merge_weights [E]) -> aux`, scalars
      on what is played: the candidate's index, and for a tree the leaf that
      holds the weights, depth, max_depth, num_leaves, tree_full.
    update: `update(state, decision, seen) -> state`; `seen` is false where the
      slot showed nothing, and the state then stays. The decision's aux may be
      empty: who serves the weights at once need not wait for it.
  """

  init: Callable[[], Any]
  propose: Callable[[jax.Array, Any], tuple[jax.Array, jax.Array]]
  describe: Callable[..., dict[str, jax.Array]]
  update: Callable[[Any, Decision, jax.Array], Any]


class LeavesState(NamedTuple):
  """State of `leaves`."""

  tree: Any
  visits: jax.Array  # [M] int32, slots in which a node was the leaf played


def make_source(
  name: str, num_experts: int, num_candidates: int | None = None
) -> Source:
  """Returns the source of that name.

  Args:
    name: one of DEFAULT_SIZES; "tree" for the leaves of a tree of simplices.
    num_experts: E.
    num_candidates: N; None for DEFAULT_SIZES[name].

  Raises:
    ValueError: if the name is not known or a size out of range.
  """
  check_choice("candidates", name, DEFAULT_SIZES)
  size = DEFAULT_SIZES[name] if num_candidates is None else num_candidates
  check_at_least("num_experts", num_experts, 2)
  check_at_least("num_candidates", size, 1)
  if name == "tree":
    return leaves(
      partitions.simplex(num_experts=num_experts, capacity=2 * size - 1),
      num_experts=num_experts,
    )
  draws, describe = Shape((size, num_experts)), Partial(_describe)
  if name == "ascent":
    return Source(
      Partial(_centre, draws),
      Partial(_propose_starts, draws),
      describe,
      Partial(_remember),
    )
  return Source(
    Partial(tuple), Partial(_propose_dirichlet, draws), describe, Partial(_keep)
  )


@ranges.checked
def leaves(
  partition: Partition,
  *,
  num_experts: AtLeastTwo,
  rho: Inner = 0.9,
  split_scale: Positive = 1.0,
  num_fresh: Whole = 0,
) -> Source:
  """Returns the leaves of a tree that grows where it is played.

  Args:
    partition: of the tree.
    num_experts: E.
    rho: how fast cells shrink with depth, in (0, 1).
    split_scale: visits that split the root.
    num_fresh: fresh Dirichlet(1/2) draws that join the leaves, as many as the
      tree has splits at first, num_fresh in the end.

  Raises:
    ValueError: if a number is out of range.
  """
  return Source(
    Partial(_init_tree, partition),
    Partial(_propose_leaves, Shape((num_fresh, num_experts))),
    Partial(_describe_leaf, partition),
    Partial(_grow, partition, jnp.float32(rho), jnp.float32(split_scale)),
  )


def ascent_starts(
  key: chex.PRNGKey, previous: chex.Array, num_fresh: int
) -> jax.Array:
  """Returns where an ascent of the score may begin, [E + 2 + num_fresh, E].

  The vertices, the centre, the weights played last and fresh Dirichlet(1/2)
  draws, which favour few experts as good merges do [R].

  Args:
    key: random key, consumed.
    previous: [E], the weights played last.
    num_fresh: how many are drawn anew.
  """
  num_experts = previous.shape[0]
  centre = jnp.full((1, num_experts), 1 / num_experts, jnp.float32)
  fresh = dirichlet_half(key, (num_fresh, num_experts))
  return jnp.concatenate(
    [jnp.eye(num_experts, dtype=jnp.float32), centre, previous[None, :], fresh]
  )


def _propose_dirichlet(draws: Shape, key, state) -> tuple[jax.Array, jax.Array]:
  del state
  return dirichlet_one(key, draws), jnp.ones(draws[0], bool)


def _describe(state, candidate, merge_weights) -> dict[str, jax.Array]:
  del state, merge_weights
  return {"candidate": candidate}


def _keep(state, decision, seen) -> Any:
  del decision, seen
  return state


def _centre(draws: Shape) -> jax.Array:
  return jnp.full(draws[1], 1 / draws[1], jnp.float32)


def _propose_starts(draws: Shape, key, previous) -> tuple[jax.Array, jax.Array]:
  points = ascent_starts(key, previous, draws[0])
  return points, jnp.ones(points.shape[0], bool)


def _remember(previous, decision: Decision, seen) -> jax.Array:
  return jnp.where(seen, decision.merge_weights, previous)


def _init_tree(partition) -> LeavesState:
  tree = partition.init()
  return LeavesState(tree, jnp.zeros_like(tree.depths))


def _propose_leaves(draws: Shape, key, state) -> tuple[jax.Array, jax.Array]:
  tree = state.tree
  fresh = dirichlet_half(key, draws)
  num_splits = jnp.sum(tree.is_leaf, dtype=jnp.int32) - 1
  return (
    jnp.concatenate([tree.representatives, fresh]),
    jnp.concatenate(
      [tree.is_leaf, jnp.arange(draws[0], dtype=jnp.int32) < num_splits]
    ),
  )


def _leaf(partition, tree, candidate, merge_weights) -> jax.Array:
  """The leaf that is credited, [] int32."""
  # Representatives of boxes lie on faces that two cells share: a leaf that is
  # played as it is must be credited itself.
  capacity = tree.representatives.shape[0]
  own = jnp.minimum(candidate, capacity - 1)
  is_own = jnp.all(merge_weights == tree.representatives[own])
  is_own = is_own & (candidate < capacity)
  return jnp.where(is_own, own, partition.locate(tree, merge_weights))


def _holder(tree, merge_weights) -> jax.Array:
  """The first leaf whose representative the weights are, [] int32; else 0."""
  same = jnp.all(tree.representatives == merge_weights[None], axis=1)
  return jnp.argmax(same & tree.is_leaf).astype(jnp.int32)


def _describe_leaf(
  partition, state: LeavesState, candidate, merge_weights
) -> dict[str, jax.Array]:
  tree = state.tree
  leaf = _leaf(partition, tree, candidate, merge_weights)
  return {
    "leaf": leaf,
    "depth": tree.depths[leaf],
    "max_depth": jnp.max(jnp.where(tree.is_leaf, tree.depths, 0)),
    "num_leaves": jnp.sum(tree.is_leaf, dtype=jnp.int32),
    "tree_full": tree.full,
  }


def _grow(
  partition, rho, split_scale, state: LeavesState, decision: Decision, seen
) -> LeavesState:
  leaf = decision.aux.get("leaf")
  if leaf is None:  # Who serves the weights at once leaves out the rest.
    own = _holder(state.tree, decision.merge_weights)
    leaf = _leaf(partition, state.tree, own, decision.merge_weights)
  return LeavesState(
    *tree_growth.visit(
      partition, *state, leaf, seen, rho=rho, split_scale=split_scale
    )
  )
