"""Task mix by a Count-Min Sketch over a sliding window of slots.

Cormode and Muthukrishnan, "An improved data stream summary: the count-min
sketch and its applications", J. Algorithms 55, 2005: each of `depth` rows
hashes a task to one of `width` counters, and the smallest of a task's counters
is its count plus what collided with it in every row: never too small, and with
probability 1 - exp(-depth) too large by at most e / width of all requests.

[R] The window: one sketch a slot in a ring, and their running sum; sketches
add, so the oldest is subtracted exactly (int32, fewer than 2^31 requests in a
window). Letters: V tasks.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from tanbr_jax.checks import ranges
from tanbr_jax.checks.ranges import Count, Whole
from tanbr_jax.monitor import base

_PRIME = 2**31 - 1


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class SketchState:
  """The window.

  Attributes:
    slots: [window, depth, width] int32, the sketches of the last slots.
    total: [depth, width] int32, their sum.
    oldest: [] int32, the slot that is overwritten next.
  """

  slots: jax.Array
  total: jax.Array
  oldest: jax.Array


@ranges.checked
def count_min_sketch(
  *,
  num_tasks: Count,
  width: Count = 64,
  depth: Count = 4,
  window: Count = 64,
  seed: Whole = 0,
) -> base.Monitor:
  """Monitor of the shares in the last `window` slots that had requests.

  Args:
    num_tasks: V.
    width: counters a row.
    depth: rows, each with a hash function of its own.
    window: slots.
    seed: of the hash functions.

  Raises:
    ValueError: a size below 1.
  """
  buckets = jnp.asarray(
    hash_buckets(num_tasks=num_tasks, width=width, depth=depth, seed=seed)
  )
  slots = jnp.zeros((window, depth, width), jnp.int32)
  return base.Monitor(
    init=Partial(_init, slots),
    update=Partial(_update, buckets),
    estimate=Partial(_estimate, buckets),
  )


def hash_buckets(
  *, num_tasks: int, width: int, depth: int, seed: int
) -> np.ndarray:
  """Returns each task's counter in each row, [depth, V] int32.

  h(v) = ((a v + b) mod p) mod width with p = 2^31 - 1 and a, b drawn for each
  row (Carter and Wegman 1979): pairwise independent before the last modulo.

  Args:
    num_tasks: V.
    width: counters a row.
    depth: rows.
    seed: of a and b.
  """
  rng = np.random.default_rng(seed)
  a = rng.integers(1, _PRIME, (depth, 1), dtype=np.int64)
  b = rng.integers(0, _PRIME, (depth, 1), dtype=np.int64)
  tasks = np.arange(num_tasks, dtype=np.int64)[None, :]
  return ((a * tasks + b) % _PRIME % width).astype(np.int32)


def window_counts(buckets: jax.Array, state: SketchState) -> jax.Array:
  """Returns the requests of each task in the window, [V], never too small.

  Args:
    buckets: [depth, V] int32, from `hash_buckets`.
    state: the window.
  """
  return jnp.min(jnp.take_along_axis(state.total, buckets, axis=1), axis=0)


def _init(slots: jax.Array) -> SketchState:
  return SketchState(
    slots=slots, total=jnp.zeros_like(slots[0]), oldest=jnp.int32(0)
  )


def _update(
  buckets: jax.Array, state: SketchState, task_count: jax.Array
) -> SketchState:
  task_count = task_count.astype(jnp.int32)
  rows = jnp.arange(buckets.shape[0], dtype=jnp.int32)[:, None]
  zero = jnp.zeros_like(state.total)
  sketch = zero.at[rows, buckets].add(
    jnp.broadcast_to(task_count[None, :], buckets.shape)
  )
  # A slot without requests: rewrite the oldest sketch by itself, stay there.
  seen = jnp.any(task_count > 0)
  oldest = state.slots[state.oldest]
  sketch = jnp.where(seen, sketch, oldest)
  num_slots = jnp.int32(state.slots.shape[0])
  return SketchState(
    slots=state.slots.at[state.oldest].set(sketch),
    total=state.total + sketch - oldest,
    oldest=(state.oldest + seen.astype(jnp.int32)) % num_slots,
  )


def _estimate(buckets: jax.Array, state: SketchState) -> jax.Array:
  return base.normalise(window_counts(buckets, state))
