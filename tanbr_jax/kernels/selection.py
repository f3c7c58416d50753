"""The indices of the largest scores, fast on every device.

Letters: N rows (tokens), E scores of each (experts), K of them wanted.
"""

import jax
import jax.numpy as jnp
from jax import lax

from tanbr_jax.kernels import implementations
from tanbr_jax.kernels.arrays import check_is_array
from tanbr_jax.kernels.implementations import Implementation

# Comparisons of all pairs of scores that a fused pass makes faster than a sort.
_MOST_COMPARISONS = 2**24


def largest_ids(
  scores: jax.Array, count: int, *, implementation: str | None = None
) -> jax.Array:
  """Returns the indices of the largest scores, as `lax.top_k` orders them.

  Args:
    scores: [..., E] float32. A NaN counts as large as infinity at least; in
      XLA one with a sign bit counts as less than all others. On a Hopper GPU
      -0 ties with 0, and NaN with infinity and the largest finite number.
    count: K, in [1, E].
    implementation: None (the best one for the device), "xla" or "mosaic_gpu".

  Returns:
    [..., K] int32, the largest score's index first, ties in order. No
    gradient flows.

  Raises:
    ValueError: if K is not in [1, E], the scores are not float32, or the
      implementation cannot run.
  """
  check_is_array(scores=scores)
  if (
    scores.ndim < 1
    or scores.dtype != jnp.float32
    or not 1 <= count <= scores.shape[-1]
  ):
    raise ValueError(
      "count must be in [1, E] for float32 scores [..., E], got "
      f"count={count}, scores {scores.dtype}{scores.shape}"
    )
  scores = lax.stop_gradient(scores)
  run = implementations.select(implementation, _TABLE, count, scores)
  return run(count, scores)


def ranks(scores: jax.Array) -> jax.Array:
  """[..., E] int32, how many scores come before each; all different."""
  # Integers in the order of the floats, NaNs included, or two NaNs would have
  # one rank and an id could leave its range.
  bits = lax.bitcast_convert_type(scores, jnp.int32)
  order = jnp.where(bits < 0, bits ^ jnp.int32(0x7FFFFFFF), bits)
  this, other = order[..., :, None], order[..., None, :]
  index = jnp.arange(scores.shape[-1], dtype=jnp.int32)
  is_earlier = with_rank(index[None, :] < index[:, None], this.ndim)
  is_before = (other > this) | ((other == this) & is_earlier)
  return jnp.sum(is_before, axis=-1, dtype=jnp.int32)


def ids_by_rank(scores: jax.Array, count: int) -> jax.Array:
  """The indices of the largest scores, without a sort.

  A score's rank is the number of scores that beat it: E comparisons, which
  XLA fuses into one pass, where a GPU's sorts take several. A CPU sorts faster.
  """
  rank = ranks(scores)[..., None, :]
  wanted = jnp.arange(count, dtype=jnp.int32)[:, None]
  index = jnp.arange(scores.shape[-1], dtype=jnp.int32)
  wanted, index = with_rank(wanted, rank.ndim), with_rank(index, rank.ndim)
  ids = jnp.where(rank == wanted, index, 0)
  return jnp.sum(ids, axis=-1, dtype=jnp.int32)


def with_rank(x: jax.Array, rank: int) -> jax.Array:
  """Returns x with leading axes of 1 up to that rank."""
  return x.reshape((1,) * (rank - x.ndim) + x.shape)


def _xla(count: int, scores: jax.Array) -> jax.Array:
  def sort(scores: jax.Array) -> jax.Array:
    # 64 bits wide where those are enabled.
    return lax.top_k(scores, count)[1].astype(jnp.int32)

  if scores.size * scores.shape[-1] > _MOST_COMPARISONS:
    return sort(scores)
  return lax.platform_dependent(
    scores, cpu=sort, default=lambda scores: ids_by_rank(scores, count)
  )


def _kernel(count: int, scores: jax.Array) -> jax.Array:
  rows = scores.reshape(-1, scores.shape[-1])
  ids = implementations.mosaic_gpu().largest_ids(rows, count)
  return ids.reshape(*scores.shape[:-1], count)


def _mosaic_gpu(count: int, scores: jax.Array) -> jax.Array:
  run = implementations.on_platform("cuda", _kernel, _xla, count)
  return run(scores)


def _why_not_mosaic_gpu(count: int, scores: jax.Array) -> str | None:
  return implementations.why_not_mosaic_gpu(
    "largest_ids", scores.shape, count, scores.dtype
  )


_TABLE = {
  "mosaic_gpu": Implementation(_mosaic_gpu, _why_not_mosaic_gpu),
  "xla": Implementation(_xla),
}
