"""Candidate merge weights: what a bandit scores in a round.

  dirichlet   N fresh draws of Dirichlet(1), uniform on the simplex
  grid        N fixed points spread over the simplex
  tree        the leaves of a partition that splits where it is played, up to N
  ascent      where gradient ascent of the score begins: vertices, centre, the
              weights played last, N fresh draws of Dirichlet(1/2)

Letters: E experts, N candidates.
"""

import itertools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from scipy.stats import qmc

from tanbr_jax import partition as partitions
from tanbr_jax.bandits.base import check_at_least
from tanbr_jax.bandits.trees import tree_growth

# How many there are when a bandit is not told.
DEFAULT_SIZES = {"dirichlet": 20, "grid": 256, "tree": 128, "ascent": 32}


class Source(NamedTuple):
  """A source of candidates as three pure functions; a pytree.

  Attributes:
    init: `init() -> state`.
    propose: `propose(key, state) -> (points [N, E], active [N] bool)`.
    update: `update(state, candidate, merge_weights [E], seen) -> state`: the
      weights were played, from that candidate; `seen` is false where the slot
      showed nothing, and the state then stays.
  """

  init: Callable[[], Any]
  propose: Callable[[jax.Array, Any], tuple[jax.Array, jax.Array]]
  update: Callable[..., Any]


class TreeState(NamedTuple):
  """State of the "tree" source.

  Attributes:
    tree: of the partition.
    visits: [M] int32, slots in which a node was the leaf that was played.
  """

  tree: Any
  visits: jax.Array


def make_source(
  name: str,
  *,
  num_experts: int,
  num_candidates: int | None = None,
  rho: chex.Numeric = 0.9,
  split_scale: chex.Numeric = 1.0,
) -> Source:
  """Returns the source of that name.

  Args:
    name: one of DEFAULT_SIZES.
    num_experts: E.
    num_candidates: N; None for DEFAULT_SIZES[name].
    rho: "tree": how fast cells shrink with depth, in (0, 1).
    split_scale: "tree": visits that split the root.

  Raises:
    ValueError: if the name is not known or a number out of range.
  """
  if name not in DEFAULT_SIZES:
    raise ValueError(
      f"candidates must be one of {sorted(DEFAULT_SIZES)}, got "
      f"candidates={name!r}"
    )
  check_at_least("num_experts", num_experts, 2)
  size = DEFAULT_SIZES[name] if num_candidates is None else num_candidates
  if size < 1:
    raise ValueError(
      f"num_candidates must be at least 1, got num_candidates={num_candidates}"
    )
  # Read for its shape alone, which `jit` then knows.
  shape = jnp.zeros((size, num_experts), jnp.float32)
  if name == "tree":
    return _tree(num_experts, size, rho, split_scale)
  if name == "ascent":
    example = jnp.full(num_experts, 1 / num_experts, jnp.float32)
    return Source(
      Partial(jnp.copy, example),
      Partial(_propose_starts, shape),
      Partial(_remember),
    )
  propose = Partial(_draw_dirichlet, shape)
  if name == "grid":
    propose = Partial(_propose_fixed, jnp.asarray(grid(size, num_experts)))
  return Source(Partial(tuple), propose, Partial(_keep))


def dirichlet_half(key: chex.PRNGKey, shape: tuple[int, int]) -> jax.Array:
  """Returns [N, E] draws of Dirichlet(1/2): squared normals, normalised.

  `jax.random.dirichlet` draws by rejection, which is slow inside a scan.

  Args:
    key: random key, consumed.
    shape: (N, E).
  """
  squares = jax.random.normal(key, shape) ** 2
  return squares / jnp.sum(squares, axis=-1, keepdims=True)


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
    [jnp.eye(num_experts), centre, previous[None, :], fresh]
  )


def lattice(num_divisions: int, num_experts: int) -> np.ndarray:
  """Returns all weights in multiples of 1 / H, [C(H + E - 1, E - 1), E].

  Das and Dennis, "Normal-boundary intersection", SIAM J. Optim. 1998.

  Args:
    num_divisions: H.
    num_experts: E.
  """
  slots = range(num_divisions + num_experts - 1)
  bars = np.array(list(itertools.combinations(slots, num_experts - 1)), int)
  bars = bars.reshape(-1, num_experts - 1)
  ends = np.full((len(bars), 1), num_divisions + num_experts - 1)
  fenced = np.concatenate([np.full((len(bars), 1), -1), bars, ends], axis=1)
  return (np.diff(fenced, axis=1) - 1) / num_divisions


def grid(num_points: int, num_experts: int) -> np.ndarray:
  """Returns N fixed points of the simplex, [N, E] float32.

  The finest lattice of at most N points, then Sobol points carried onto the
  simplex as normalised exponentials, which makes uniform points uniform there
  [R]. With many experts no lattice is small enough, and all are Sobol points.

  Args:
    num_points: N.
    num_experts: E.
  """
  divisions = 0
  while math.comb(divisions + num_experts, num_experts - 1) <= num_points:
    divisions += 1
  points = np.zeros((0, num_experts))
  if divisions:
    points = lattice(divisions, num_experts)
  missing = num_points - len(points)
  if missing:
    # The sequence begins at the origin, whose logarithm is not finite.
    engine = qmc.Sobol(num_experts, scramble=False)
    uniform = engine.random_base2(missing.bit_length())[1 : missing + 1]
    draws = -np.log(uniform)
    points = np.concatenate([points, draws / draws.sum(1, keepdims=True)])
  return points.astype(np.float32)


def _draw_dirichlet(shape, key, state) -> tuple[jax.Array, jax.Array]:
  del state
  # Normalised exponentials are Dirichlet(1): uniform on the simplex.
  draws = jax.random.exponential(key, shape.shape)
  points = draws / jnp.sum(draws, axis=-1, keepdims=True)
  return points, jnp.ones(shape.shape[0], bool)


def _propose_fixed(points, key, state) -> tuple[jax.Array, jax.Array]:
  del key, state
  return points, jnp.ones(points.shape[0], bool)


def _propose_starts(shape, key, previous) -> tuple[jax.Array, jax.Array]:
  points = ascent_starts(key, previous, shape.shape[0])
  return points, jnp.ones(points.shape[0], bool)


def _keep(state, candidate, merge_weights, seen) -> Any:
  del candidate, merge_weights, seen
  return state


def _remember(previous, candidate, merge_weights, seen) -> jax.Array:
  del candidate
  return jnp.where(seen, merge_weights, previous)


def _tree(num_experts, num_leaves, rho, split_scale) -> Source:
  tree_growth.check(rho, split_scale)
  partition = partitions.simplex(
    num_experts=num_experts, capacity=2 * num_leaves - 1
  )
  return Source(
    Partial(_init_tree, partition),
    Partial(_propose_leaves),
    Partial(_grow, partition, jnp.float32(rho), jnp.float32(split_scale)),
  )


def _init_tree(partition) -> TreeState:
  tree = partition.init()
  return TreeState(tree, jnp.zeros_like(tree.depths))


def _propose_leaves(key, state: TreeState) -> tuple[jax.Array, jax.Array]:
  del key
  return state.tree.representatives, state.tree.is_leaf


def _grow(
  partition, rho, split_scale, state: TreeState, leaf, merge_weights, seen
) -> TreeState:
  del merge_weights
  return TreeState(
    *tree_growth.visit(
      partition, *state, leaf, seen, rho=rho, split_scale=split_scale
    )
  )
