"""Grouped matrix products on Hopper, with the gate of a gated FFN fused in.

One persistent block a multiprocessor. Its memory warpgroup runs ahead through
the tiles of the output and keeps a ring of shared-memory stages full; two
compute warpgroups multiply and store. Tiles follow the rows in use, so rows
past the groups cost nothing.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plgpu

from tanbr_jax.kernels.mosaic_gpu import tiles as tiling

TILE_K = 64
COLUMNS = 64  # of one store: 128 bytes, the widest swizzle
OUT_SLOTS = 2  # stores in flight of one warpgroup
ROWS = 64  # of a warpgroup's tile: the M of one wgmma


class Config(NamedTuple):
  """Shape of the work of one block.

  Attributes:
    tile_m: rows of one tile. With 128 the two compute warpgroups take 64 each;
      with 64 or less each takes half of the columns, and rows that were not
      loaded are multiplied as they are and never stored.
    tile_n: columns of one tile, of each matrix. With 64 of them and 64 rows or
      less there is one compute warpgroup.
    stages: depth of the ring in shared memory.
    band: row tiles that are visited before the next column tile.
  """

  tile_m: int
  tile_n: int
  stages: int
  band: int = 8

  @property
  def compute(self) -> int:
    """Compute warpgroups."""
    return 1 if self.tile_m <= ROWS and self.tile_n == COLUMNS else 2


def run(
  lhs: jax.Array,
  matrices: tuple[jax.Array, ...],
  group_sizes: jax.Array,
  *,
  epilogue: Callable[..., jax.Array],
  config: Config,
  num_blocks: int,
) -> jax.Array:
  """Applies `epilogue` to the products of each group's rows.

  Args:
    lhs: [M, K] float16 or bfloat16, rows sorted by group; M a multiple of 8,
      K of 64.
    matrices: one or two of [E, K, N] of lhs's type; N a multiple of the tile.
    group_sizes: [E] int32.
    epilogue: float32 products [rows, columns] of every matrix -> their result.
    config: tile shapes.
    num_blocks: multiprocessors of the device.

  Returns:
    [M, N] of lhs's type; rows past `sum(group_sizes)` are not written.
  """
  num_rows = lhs.shape[0]
  num_columns = matrices[0].shape[2]
  table, num_tiles = tiling.row_tiles(group_sizes, num_rows, config.tile_m)
  kernel = plgpu.kernel(
    functools.partial(_body, epilogue=epilogue, config=config),
    out_type=jax.ShapeDtypeStruct((num_rows, num_columns), lhs.dtype),
    grid=(num_blocks,),
    grid_names=("block",),
    num_threads=config.compute + 1,
    thread_name="warpgroup",
    compiler_params=plgpu.CompilerParams(approx_math=True),
  )
  return kernel(table, num_tiles, lhs, *matrices)


class _Refs(NamedTuple):
  """The arrays and barriers of one block, and the tiles that it computes."""

  table: Any
  num_tiles: Any
  lhs: Any
  matrices: tuple[Any, ...]
  out: Any
  lhs_smem: Any  # [stages, rows, TILE_K]
  matrices_smem: tuple[Any, ...]  # [stages, TILE_K, tile_n] each
  out_smem: Any  # [compute, OUT_SLOTS, ROWS, COLUMNS]
  full: Any
  empty: Any

  @property
  def num_steps(self) -> int:
    """Stages of one tile."""
    return self.lhs.shape[1] // TILE_K

  def for_tiles(self, config: Config, visit: Callable[..., None]) -> None:
    """Calls visit(i, row tile, column tile) for this block's i-th tile."""
    num_blocks = lax.axis_size("block")
    block = lax.axis_index("block")
    row_tiles = self.num_tiles[0]
    column_tiles = self.out.shape[1] // config.tile_n
    left = row_tiles * column_tiles - block + num_blocks - 1

    def body(i, _):
      index = block + i * num_blocks
      visit(i, *tiling.in_bands(index, row_tiles, column_tiles, config.band))

    lax.fori_loop(0, jnp.maximum(lax.div(left, num_blocks), 0), body, None)


def _body(table, num_tiles, lhs, *refs, epilogue, config):
  *matrices, out = refs
  swizzled = (plgpu.TilingTransform((8, TILE_K)), plgpu.SwizzleTransform(128))
  stored = (plgpu.TilingTransform((1, COLUMNS)), plgpu.SwizzleTransform(128))
  lhs_shape = (config.stages, max(config.tile_m, ROWS), TILE_K)
  shape = (config.stages, TILE_K, config.tile_n)
  out_shape = (config.compute, OUT_SLOTS, ROWS, COLUMNS)

  def work(*scratch):
    refs = _Refs(table, num_tiles, lhs, matrices, out, *scratch)
    warpgroup = lax.axis_index("warpgroup")

    @pl.when(warpgroup == config.compute)
    def _():
      plgpu.set_max_registers(40, action="decrease")
      _load(refs, config)

    @pl.when(warpgroup < config.compute)
    def _():
      plgpu.set_max_registers(232, action="increase")
      _multiply(refs, config, epilogue, warpgroup)

  pl.run_scoped(
    work,
    plgpu.SMEM(lhs_shape, lhs.dtype, transforms=swizzled),
    [plgpu.SMEM(shape, lhs.dtype, transforms=swizzled) for _ in matrices],
    plgpu.SMEM(out_shape, lhs.dtype, transforms=stored),
    plgpu.Barrier(num_arrivals=1 + len(matrices), num_barriers=config.stages),
    plgpu.Barrier(num_arrivals=config.compute, num_barriers=config.stages),
    collective_axes="warpgroup",
  )


def _load(refs: _Refs, config: Config) -> None:
  """The memory warpgroup: fills stage after stage."""

  def load_tile(i, row_tile, column_tile):
    group = refs.table[0, row_tile]
    first = pl.multiple_of(refs.table[1, row_tile], tiling.ALIGNMENT)
    columns = pl.ds(column_tile * config.tile_n, config.tile_n)

    def load_step(k, _):
      step = i * refs.num_steps + k
      slot = lax.rem(step, config.stages)

      @pl.when(step >= config.stages)
      def _():
        plgpu.barrier_wait(refs.empty.at[slot])

      inner = pl.ds(k * TILE_K, TILE_K)
      plgpu.copy_gmem_to_smem(
        refs.lhs.at[pl.ds(first, config.tile_m), inner],
        refs.lhs_smem.at[slot, pl.ds(0, config.tile_m)],
        refs.full.at[slot],
      )
      for matrix, smem in zip(refs.matrices, refs.matrices_smem, strict=True):
        plgpu.copy_gmem_to_smem(
          matrix.at[group, inner, columns], smem.at[slot], refs.full.at[slot]
        )

    lax.fori_loop(0, refs.num_steps, load_step, None)

  refs.for_tiles(config, load_tile)


def _multiply(refs: _Refs, config: Config, epilogue, warpgroup) -> None:
  """A compute warpgroup: products of its part of each tile, then the store."""
  # A tall tile is shared out by rows, a flat one by columns.
  if config.tile_m > ROWS:
    width, row, column = config.tile_n, warpgroup * ROWS, 0
  else:
    width = config.tile_n // config.compute
    row, column = 0, warpgroup * width
  my_rows, my_columns = pl.ds(row, ROWS), pl.ds(column, width)
  num_steps = refs.num_steps

  def multiply(i, *accumulators):
    def multiply_step(k, _):
      step = i * num_steps + k
      slot = lax.rem(step, config.stages)
      plgpu.barrier_wait(refs.full.at[slot])
      lhs = refs.lhs_smem.at[slot, my_rows]
      for accumulator, smem in zip(
        accumulators, refs.matrices_smem, strict=True
      ):
        plgpu.wgmma(accumulator, lhs, smem.at[slot, :, my_columns])
      plgpu.wgmma_wait(len(accumulators))

      # All but this step's products are done, so the step before may go.
      @pl.when(k > 0)
      def _():
        before = lax.rem(step + config.stages - 1, config.stages)
        plgpu.barrier_arrive(refs.empty.at[before])

    lax.fori_loop(0, num_steps, multiply_step, None)
    return [accumulator[...] for accumulator in accumulators]

  def compute_tile(i, row_tile, column_tile):
    start, skip, size = (refs.table[j, row_tile] for j in (1, 2, 3))
    first = jnp.clip(skip - row, 0, ROWS)
    stop = jnp.clip(skip + size - row, 0, ROWS)
    # A warpgroup without rows, at a group's end, multiplies all the same. With
    # a branch around the products an OLMoE-sized FFN of 4,096 tokens took 728
    # us instead of 688, and one of mostly half tiles nearly twice as long.
    accumulators = [
      plgpu.ACC((ROWS, width), jnp.float32) for _ in refs.matrices
    ]
    products = pl.run_scoped(functools.partial(multiply, i), *accumulators)
    # With the last products done, the last stage is free too.
    last = lax.rem(i * num_steps + num_steps - 1, config.stages)
    plgpu.barrier_arrive(refs.empty.at[last])
    result = epilogue(*products).astype(refs.out.dtype)
    # The result leaves in strips, of which OUT_SLOTS are in flight.
    for j in range(width // COLUMNS):
      smem = refs.out_smem.at[warpgroup, j % OUT_SLOTS]
      plgpu.wait_smem_to_gmem(OUT_SLOTS - 1, wait_read_only=True)
      smem[...] = result[:, j * COLUMNS : (j + 1) * COLUMNS]
      plgpu.commit_smem()
      tiling.store_rows(
        smem,
        refs.out,
        first=first,
        count=jnp.maximum(stop - first, 0),
        row=start + row,
        column=column_tile * config.tile_n + column + j * COLUMNS,
      )

  refs.for_tiles(config, compute_tile)
  plgpu.wait_smem_to_gmem(0)
