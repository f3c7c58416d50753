"""Routing without sorts: the best experts, and ranks of pairs by counting.

One warpgroup takes 64 tokens and keeps their row of every expert in registers.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plgpu

TOKENS = 64  # of one warpgroup: the rows of one wgmma
PACKED = 8  # columns that a result is padded to
MAX_COLUMNS = 256  # of one wgmma
MAX_COUNT = 32  # passes over the scores
_WGMMA = plgpu.Layout.WGMMA


def largest_ids(scores: jax.Array, count: int) -> jax.Array:
  """Returns the indices of each token's largest scores, ties in order.

  Args:
    scores: [N, E] float32, E a multiple of 8. NaN counts as infinity.
    count: K, in [1, E].

  Returns:
    [N, K] int32, the largest first.
  """
  num_tokens, num_experts = scores.shape
  finite = jnp.finfo(jnp.float32)
  scores = jnp.where(jnp.isnan(scores), finite.max, scores)
  scores = jnp.clip(scores, finite.min, finite.max)
  columns = _padded(count, PACKED)
  rows = _padded(num_tokens, TOKENS)
  kernel = plgpu.kernel(
    functools.partial(_largest, count=count),
    out_type=jax.ShapeDtypeStruct((rows, columns), jnp.int32),
    grid=(rows // TOKENS,),
    grid_names=("block",),
    scratch_types=[
      _swizzled(num_experts, jnp.float32),
      _swizzled(columns, jnp.int32),
      plgpu.Barrier(),
    ],
  )
  scores = jnp.pad(scores, ((0, rows - num_tokens), (0, 0)))
  return kernel(scores)[:num_tokens, :count]


def _largest(scores, ids, scores_smem, ids_smem, barrier, *, count):
  rows = pl.ds(lax.axis_index("block") * TOKENS, TOKENS)
  plgpu.copy_gmem_to_smem(scores.at[rows], scores_smem, barrier)
  plgpu.barrier_wait(barrier)
  left = plgpu.layout_cast(scores_smem[...], _WGMMA)
  shape, packed = left.shape, ids_smem.shape
  # Indices as floats, exact and with the same reductions as the scores.
  index = _columns(shape, jnp.float32)
  column = _columns(packed, jnp.float32)
  found = plgpu.layout_cast(jnp.zeros(packed, jnp.float32), _WGMMA)
  for k in range(count):
    best = _spread(jnp.max(left, axis=1), shape)
    candidates = jnp.where(left == best, -index, -jnp.inf)
    chosen = jnp.max(candidates, axis=1)
    left = jnp.where(index == -_spread(chosen, shape), -jnp.inf, left)
    found = jnp.where(column == k, -_spread(chosen, packed), found)
  ids_smem[...] = found.astype(jnp.int32)
  plgpu.commit_smem()
  plgpu.copy_smem_to_gmem(ids_smem, ids.at[rows])
  plgpu.wait_smem_to_gmem(0)


def block_ranks(
  expert_ids: jax.Array, num_groups: int
) -> tuple[jax.Array, jax.Array]:
  """Counts, for blocks of 64 tokens, the pairs of each group.

  Args:
    expert_ids: [N, K] int32; ids outside [0, E) belong to no group.
    num_groups: E.

  Returns:
    [N, K] int32: pairs of the same group among earlier tokens of the block,
    anything for pairs of no group. [blocks, E] int32: pairs of each block.
  """
  num_tokens, num_selected = expert_ids.shape
  columns = _padded(num_selected, PACKED)
  rows = _padded(num_tokens, TOKENS)
  ids = jnp.pad(
    expert_ids,
    ((0, rows - num_tokens), (0, columns - num_selected)),
    constant_values=-1,
  )
  num_columns = _padded(num_groups, 64)  # what has a layout for each sum
  kernel = plgpu.kernel(
    functools.partial(_ranks, num_selected=num_selected),
    out_type=[
      jax.ShapeDtypeStruct((rows, columns), jnp.int32),
      jax.ShapeDtypeStruct((rows // TOKENS, num_columns), jnp.int32),
    ],
    grid=(rows // TOKENS,),
    grid_names=("block",),
    scratch_types=[
      _swizzled(columns, jnp.int32),
      _swizzled(TOKENS, jnp.bfloat16),
      _swizzled(num_columns, jnp.bfloat16),
      plgpu.SMEM((1, num_columns), jnp.int32),
      plgpu.Barrier(),
    ],
  )
  ranks, counts = kernel(ids)
  return ranks[:num_tokens, :num_selected], counts[:, :num_groups]


def _ranks(
  ids,
  ranks,
  counts,
  ids_smem,
  before_smem,
  is_in_smem,
  counts_smem,
  barrier,
  *,
  num_selected,
):
  # The ids are on their way while the triangle of earlier tokens is made.
  block = lax.axis_index("block")
  rows = pl.ds(block * TOKENS, TOKENS)
  plgpu.copy_gmem_to_smem(ids.at[rows], ids_smem, barrier)
  square, shape = before_smem.shape, is_in_smem.shape
  packed = ids_smem.shape
  row = plgpu.broadcasted_iota(jnp.int32, square, 0, layout=_WGMMA)
  is_before = row > plgpu.broadcasted_iota(jnp.int32, square, 1, layout=_WGMMA)
  before_smem[...] = is_before.astype(jnp.float32).astype(jnp.bfloat16)
  plgpu.barrier_wait(barrier)
  # A row for each token: how many of its pairs go to each group.
  loaded = plgpu.layout_cast(ids_smem[...], _WGMMA).astype(jnp.float32)
  column, group = _columns(packed, jnp.float32), _columns(shape, jnp.float32)
  chosen = [
    _spread(jnp.max(jnp.where(column == k, loaded, -1.0), axis=1), shape)
    for k in range(num_selected)
  ]
  is_in = sum((group == ids_k).astype(jnp.float32) for ids_k in chosen)
  is_in_smem[...] = is_in.astype(jnp.bfloat16)
  plgpu.commit_smem()

  # The triangle times these rows counts the earlier pairs of each group.
  def count(accumulator):
    plgpu.wgmma(accumulator, before_smem, is_in_smem)
    return accumulator[...]

  # Counts of at most 64 K pairs: exact in float32.
  earlier = pl.run_scoped(count, plgpu.ACC(shape, jnp.float32))
  counts_smem[0] = jnp.sum(is_in, axis=0).astype(jnp.int32)
  # Every pair takes the count of its own group.
  found = plgpu.layout_cast(jnp.zeros(packed, jnp.float32), _WGMMA)
  for k, ids_k in enumerate(chosen):
    rank = jnp.sum(jnp.where(group == ids_k, earlier, 0.0), axis=1)
    found = jnp.where(column == k, _spread(rank, packed), found)
  # Ranks overwrite the ids and leave with the counts.
  ids_smem[...] = found.astype(jnp.int32)
  plgpu.commit_smem()
  plgpu.copy_smem_to_gmem(ids_smem, ranks.at[rows])
  plgpu.copy_smem_to_gmem(counts_smem, counts.at[pl.ds(block, 1)])
  plgpu.wait_smem_to_gmem(0)


def _swizzled(columns: int, dtype: jnp.dtype):
  """Shared memory of 64 rows that products and 2D layouts read fast."""
  itemsize = jnp.dtype(dtype).itemsize
  swizzle = next(s for s in (128, 64, 32) if columns * itemsize % s == 0)
  return plgpu.SMEM(
    (TOKENS, columns),
    dtype,
    transforms=(
      plgpu.TilingTransform((8, swizzle // itemsize)),
      plgpu.SwizzleTransform(swizzle),
    ),
  )


def _columns(shape, dtype):
  index = plgpu.broadcasted_iota(jnp.int32, shape, 1, layout=_WGMMA)
  return index.astype(dtype)


def _spread(x, shape):
  return lax.broadcast_in_dim(x, shape, [0])


def _padded(size: int, multiple: int) -> int:
  return -(-size // multiple) * multiple
