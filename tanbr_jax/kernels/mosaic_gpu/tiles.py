"""Locates the tiles of a grouped product and stores their rows."""

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plgpu

ALIGNMENT = 8  # rows; what a swizzled load of shared memory starts at


def row_tiles(
  group_sizes: jax.Array, num_rows: int, tile_m: int
) -> tuple[jax.Array, jax.Array]:
  """Cuts every group into tiles of rows.

  A tile belongs to one group and starts at a multiple of 8, so a group's first
  tile may begin in the group before it.

  Args:
    group_sizes: [E] int32.
    num_rows: M.
    tile_m: rows of one tile.

  Returns:
    [4, tiles] int32: group, first row, rows to skip, rows to store; and [1]
    int32, how many tiles there are. The rest of the table is not in use.
  """
  num_groups = group_sizes.shape[0]
  # Sums of few integers by comparison: one fused kernel instead of a scan's.
  before = jnp.arange(num_groups)[:, None] >= jnp.arange(num_groups)[None, :]
  stop = jnp.sum(before * group_sizes[None, :], axis=1, dtype=jnp.int32)
  first = stop - group_sizes
  aligned = first - lax.rem(first, ALIGNMENT)
  needed = -(-(stop - aligned) // tile_m)
  needed = jnp.where(group_sizes > 0, needed, 0)
  tiles_stop = jnp.sum(before * needed[None, :], axis=1, dtype=jnp.int32)
  # A group of s rows needs at most (s + 7) / tile_m + 1 tiles.
  longest = -(-(num_rows + ALIGNMENT * num_groups) // tile_m) + num_groups
  index = jnp.arange(longest, dtype=jnp.int32)
  group = jnp.sum(
    (tiles_stop[None, :] <= index[:, None]), axis=1, dtype=jnp.int32
  )
  group = jnp.minimum(group, num_groups - 1)
  nth = index - (tiles_stop - needed)[group]
  start = aligned[group] + nth * tile_m
  skip = jnp.maximum(first[group] - start, 0)
  size = jnp.minimum(stop[group] - start, tile_m) - skip
  return jnp.stack([group, start, skip, size]), tiles_stop[-1:]


def in_bands(
  index: jax.Array, row_tiles: jax.Array, column_tiles: int, band: int
) -> tuple[jax.Array, jax.Array]:
  """Returns the (row, column) of the tile that is visited as number `index`.

  Rows in bands of `band`, columns inside a band, rows fastest: what runs at the
  same time shares rows and columns in the cache.
  """
  nth = lax.div(index, band * column_tiles)
  inside = lax.rem(index, band * column_tiles)
  width = jnp.minimum(row_tiles - nth * band, band)
  width = jnp.maximum(width, 1)
  return nth * band + lax.rem(inside, width), lax.div(inside, width)


def store_rows(smem, out, *, first, count, row, column) -> None:
  """Stores `count` of the rows of [rows, columns] from `first` on.

  A copy's size must be known to the compiler: the count's binary digits say
  which of the powers of two are copied.
  """
  size, width = smem.shape
  while size:

    @pl.when(lax.bitwise_and(count, size) != 0)
    def _(first=first, size=size):
      plgpu.copy_smem_to_gmem(
        smem.at[pl.ds(first, size)],
        out.at[pl.ds(row + first, size), pl.ds(column, width)],
        commit_group=False,
      )

    first = first + lax.bitwise_and(count, size)
    size //= 2
  plgpu.commit_smem_to_gmem_group()
