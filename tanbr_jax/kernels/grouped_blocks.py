"""Rows sorted by group times their group's matrix, in blocks of rows, in XLA.

Every group is cut into blocks of `block` rows, so the number of blocks is at
most ceil(M / block) + E whatever the sizes are, and the work follows M and not
E * M. On a CPU the blocks are a loop that stops at the last one in use; on an
accelerator, where a loop would wait for each small product, they are one
batched product over gathered matrices.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax


# Under jit, or the loop would be compiled in every call outside of one.
@jax.jit
def product(
  lhs: jax.Array, rhs: jax.Array, group_sizes: jax.Array
) -> jax.Array:
  """Returns [M, N], rows [M, K] times their group's matrix of [E, K, N].

  Rows past `sum(group_sizes)` are not read, and zeros in the result.
  """
  if lhs.shape[0] == 0:
    return jnp.zeros_like(lhs, shape=(0, rhs.shape[2]))
  return lax.platform_dependent(
    lhs, rhs, group_sizes, cpu=_product_loop, default=_product_batched
  )


def outer(lhs: jax.Array, grad: jax.Array, group_sizes: jax.Array) -> jax.Array:
  """Returns [E, K, N], `lhs[group].T @ grad[group]` of each group.

  Sums are float32; rows past `sum(group_sizes)` are not read.
  """
  if lhs.shape[0] == 0:
    shape = (group_sizes.shape[0], lhs.shape[1], grad.shape[1])
    return jnp.zeros_like(lhs, shape=shape)
  return lax.platform_dependent(
    lhs, grad, group_sizes, cpu=_outer_loop, default=_outer_batched
  )


class _Blocks(NamedTuple):
  """Groups and bounds of G blocks of rows, of which some are not in use."""

  group: jax.Array  # [G] int32
  start: jax.Array  # [G] int32
  stop: jax.Array  # [G] int32, start + block or the group's end
  in_use: jax.Array  # [] int32


def _blocks(
  group_sizes: jax.Array,
  num_rows: int,
  block: int,
  group_stop: jax.Array | None = None,
) -> _Blocks:
  """Blocks of groups that lie one after the other, or end where it is said."""
  num_groups = group_sizes.shape[0]
  if group_stop is None:
    group_stop = jnp.cumsum(group_sizes)
  last_block = jnp.cumsum(-(-group_sizes // block))
  index = jnp.arange(-(-num_rows // block) + num_groups, dtype=jnp.int32)
  group = jnp.searchsorted(
    last_block, index, side="right", method="compare_all"
  )
  group = jnp.minimum(group, num_groups - 1).astype(jnp.int32)
  first_block = last_block - -(-group_sizes // block)
  group_start = group_stop - group_sizes
  start = group_start[group] + (index - first_block[group]) * block
  stop = jnp.minimum(start + block, group_stop[group])
  return _Blocks(group, start, stop, last_block[-1])


def _two_sizes(
  group_sizes: jax.Array, num_rows: int, block: int
) -> list[tuple[int, _Blocks]]:
  """Blocks of that many rows, and of a quarter for a group's last few.

  A block takes as long with one row in use as with all of them: groups that
  masks left few rows of would take the time of full ones.
  """
  small = max(block // 4, min(block, 8))
  if small == block:
    return [(block, _blocks(group_sizes, num_rows, block))]
  # Two small blocks at most: each reads the group's matrix again.
  last = group_sizes % block
  last = jnp.where(last <= block // 2, last, 0)
  stop = jnp.cumsum(group_sizes)
  return [
    (block, _blocks(group_sizes - last, num_rows, block, stop - last)),
    (small, _blocks(last, num_rows, small, stop)),
  ]


def _block_size(num_rows: int, num_groups: int, largest: int) -> int:
  """A power of two near a group's mean size, so that little is padding."""
  mean = max(num_rows // num_groups, 1)
  return int(np.clip(2 ** int(np.log2(mean)), 8, largest))


def _rows_of(
  blocks: _Blocks, i: jax.Array, block: int, num_rows: int
) -> tuple[jax.Array, jax.Array]:
  """The first row of a slice that holds block i, and a mask of its rows.

  At the end of the array the slice begins before the block does, so that
  nothing has to be padded, which would copy the whole array.
  """
  first = jnp.minimum(blocks.start[i], num_rows - block)
  rows = first + jnp.arange(block, dtype=first.dtype)
  is_row = (rows >= blocks.start[i]) & (rows < blocks.stop[i])
  return first, is_row[:, None]


def _product_loop(
  lhs: jax.Array, rhs: jax.Array, group_sizes: jax.Array
) -> jax.Array:
  num_rows = lhs.shape[0]
  block = min(_block_size(num_rows, rhs.shape[0], 256), num_rows)

  def body(
    block: int, blocks: _Blocks, i: jax.Array, out: jax.Array
  ) -> jax.Array:
    first, is_row = _rows_of(blocks, i, block, num_rows)
    matrix = lax.dynamic_index_in_dim(rhs, blocks.group[i], keepdims=False)
    product = lax.dynamic_slice_in_dim(lhs, first, block) @ matrix
    others = lax.dynamic_slice_in_dim(out, first, block)
    rows = jnp.where(is_row, product, others)
    return lax.dynamic_update_slice_in_dim(out, rows, first, 0)

  # All three vary alike here, as the carry of the loop has to.
  out = jnp.zeros_like(lhs, shape=(num_rows, rhs.shape[2]))
  for size, blocks in _two_sizes(group_sizes, num_rows, block):
    each = functools.partial(body, size, blocks)
    out = lax.fori_loop(0, blocks.in_use, each, out)
  return out


def _outer_loop(
  lhs: jax.Array, grad: jax.Array, group_sizes: jax.Array
) -> jax.Array:
  num_rows, num_groups = lhs.shape[0], group_sizes.shape[0]
  block = min(_block_size(num_rows, num_groups, 256), num_rows)
  blocks = _blocks(group_sizes, num_rows, block)

  def body(i: jax.Array, out: jax.Array) -> jax.Array:
    first, is_row = _rows_of(blocks, i, block, num_rows)
    left = lax.dynamic_slice_in_dim(lhs, first, block)
    left = jnp.where(is_row, left, jnp.zeros_like(left))
    right = lax.dynamic_slice_in_dim(grad, first, block)
    # Both sides, because zero times a NaN past the groups would be a NaN.
    right = jnp.where(is_row, right, jnp.zeros_like(right))
    product = jnp.matmul(left.T, right, preferred_element_type=jnp.float32)
    return out.at[blocks.group[i]].add(product)

  shape = (num_groups, lhs.shape[1], grad.shape[1])
  out = jnp.zeros_like(lhs, jnp.float32, shape=shape)
  out = lax.fori_loop(0, blocks.in_use, body, out)
  return out.astype(lhs.dtype)


def _gather_blocks(x: jax.Array, blocks: _Blocks, block: int) -> jax.Array:
  """Rows of every block [G, block, ...], zeros where it is padding."""
  rows = blocks.start[:, None] + jnp.arange(block, dtype=jnp.int32)[None, :]
  rows = jnp.where(rows < blocks.stop[:, None], rows, x.shape[0])
  return x.at[rows].get(mode="fill", fill_value=0)


def _places(group_sizes: jax.Array, num_rows: int, block: int) -> jax.Array:
  """[M] where each row lies among the rows of all blocks; far out if unused."""
  rows = jnp.arange(num_rows, dtype=jnp.int32)
  group_stop = jnp.cumsum(group_sizes)
  group = jnp.searchsorted(group_stop, rows, side="right", method="compare_all")
  group = jnp.minimum(group, group_sizes.shape[0] - 1)
  num_blocks = -(-group_sizes // block)
  first_row = (jnp.cumsum(num_blocks) - num_blocks) * block
  inside = rows - (group_stop - group_sizes)[group]
  unused = jnp.iinfo(jnp.int32).max
  return jnp.where(rows < group_stop[-1], first_row[group] + inside, unused)


def _product_batched(
  lhs: jax.Array, rhs: jax.Array, group_sizes: jax.Array
) -> jax.Array:
  num_rows = lhs.shape[0]
  block = _block_size(num_rows, rhs.shape[0], 512)
  blocks = _blocks(group_sizes, num_rows, block)
  padded = _gather_blocks(lhs, blocks, block)
  product = jnp.einsum("gbk,gkn->gbn", padded, rhs[blocks.group])
  # Gathered back: a scatter of bfloat16 rows is many times slower on a GPU.
  places = _places(group_sizes, num_rows, block)
  product = product.reshape(-1, rhs.shape[2])
  return product.at[places].get(mode="fill", fill_value=0)


def _outer_batched(
  lhs: jax.Array, grad: jax.Array, group_sizes: jax.Array
) -> jax.Array:
  num_groups = group_sizes.shape[0]
  block = _block_size(lhs.shape[0], num_groups, 512)
  blocks = _blocks(group_sizes, lhs.shape[0], block)
  left = _gather_blocks(lhs, blocks, block)
  right = _gather_blocks(grad, blocks, block)
  product = jnp.einsum(
    "gbk,gbn->gkn", left, right, preferred_element_type=jnp.float32
  )
  out = jax.ops.segment_sum(product, blocks.group, num_groups)
  return out.astype(lhs.dtype)
