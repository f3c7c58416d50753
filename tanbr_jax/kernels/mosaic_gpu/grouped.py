"""Grouped matrix products on Hopper, with the gate of a gated FFN fused in.

One persistent block a multiprocessor. Its memory warpgroup runs ahead through
the tiles of the output and keeps a ring of shared-memory stages full; two
compute warpgroups multiply and store. Tiles follow the rows in use, so rows
past the groups cost nothing.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plgpu

from tanbr_jax.kernels.mosaic_gpu import tiles as tiling

TILE_K = 64
COLUMNS = 64  # of one store: 128 bytes, the widest swizzle
COMPUTE = 2  # warpgroups
OUT_SLOTS = 2  # stores in flight of one warpgroup
ROWS = 64  # of a warpgroup's tile: the M of one wgmma


class Config(NamedTuple):
  """Shape of the work of one block.

  Attributes:
    tile_m: rows of one tile. With 128 the two compute warpgroups take 64 each;
      with 64 or less each takes half of the columns, and rows that were not
      loaded are multiplied as they are and never stored.
    tile_n: columns of one tile, of each matrix.
    stages: depth of the ring in shared memory.
    band: row tiles that are visited before the next column tile.
  """

  tile_m: int
  tile_n: int
  stages: int
  band: int = 8


def run(
  lhs: jax.Array,
  matrices: tuple[jax.Array, ...],
  group_sizes: jax.Array,
  *,
  epilogue,
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
  num_rows, depth = lhs.shape
  num_columns = matrices[0].shape[2]
  table, num_tiles = tiling.row_tiles(group_sizes, num_rows, config.tile_m)
  kernel = plgpu.kernel(
    functools.partial(
      _body,
      epilogue=epilogue,
      config=config,
      depth=depth,
      num_columns=num_columns,
      num_blocks=num_blocks,
    ),
    out_type=jax.ShapeDtypeStruct((num_rows, num_columns), lhs.dtype),
    grid=(num_blocks,),
    grid_names=("block",),
    num_threads=COMPUTE + 1,
    thread_name="warpgroup",
    compiler_params=plgpu.CompilerParams(approx_math=True),
  )
  return kernel(table, num_tiles, lhs, *matrices)


def _body(
  table, num_tiles, lhs, *refs, epilogue, config, depth, num_columns, num_blocks
):
  *matrices, out = refs
  swizzled = (plgpu.TilingTransform((8, TILE_K)), plgpu.SwizzleTransform(128))
  stored = (plgpu.TilingTransform((1, COLUMNS)), plgpu.SwizzleTransform(128))
  pl.run_scoped(
    functools.partial(
      _tiles,
      table,
      num_tiles,
      lhs,
      matrices,
      out,
      epilogue=epilogue,
      config=config,
      depth=depth,
      num_columns=num_columns,
      num_blocks=num_blocks,
    ),
    plgpu.SMEM(
      (config.stages, max(config.tile_m, ROWS), TILE_K),
      lhs.dtype,
      transforms=swizzled,
    ),
    [
      plgpu.SMEM(
        (config.stages, TILE_K, config.tile_n), lhs.dtype, transforms=swizzled
      )
      for _ in matrices
    ],
    plgpu.SMEM(
      (COMPUTE, OUT_SLOTS, ROWS, COLUMNS), lhs.dtype, transforms=stored
    ),
    plgpu.Barrier(num_arrivals=1 + len(matrices), num_barriers=config.stages),
    plgpu.Barrier(num_arrivals=COMPUTE, num_barriers=config.stages),
    collective_axes="warpgroup",
  )


def _tiles(
  table,
  num_tiles,
  lhs,
  matrices,
  out,
  lhs_smem,
  matrices_smem,
  out_smem,
  full,
  empty,
  *,
  epilogue,
  config,
  depth,
  num_columns,
  num_blocks,
):
  warpgroup = lax.axis_index("warpgroup")
  block = lax.axis_index("block")
  num_steps = depth // TILE_K
  column_tiles = num_columns // config.tile_n
  row_tiles = num_tiles[0]
  total = row_tiles * column_tiles
  mine = jnp.maximum(lax.div(total - block + num_blocks - 1, num_blocks), 0)

  def place(i):
    return tiling.in_bands(
      block + i * num_blocks, row_tiles, column_tiles, config.band
    )

  @pl.when(warpgroup == COMPUTE)
  def _memory():
    plgpu.set_max_registers(40, action="decrease")

    def load_tile(i, _):
      row_tile, column_tile = place(i)
      group = table[0, row_tile]
      rows = pl.ds(pl.multiple_of(table[1, row_tile], 8), config.tile_m)
      columns = pl.ds(column_tile * config.tile_n, config.tile_n)

      def load_step(k, _):
        step = i * num_steps + k
        slot = lax.rem(step, config.stages)

        @pl.when(step >= config.stages)
        def _():
          plgpu.barrier_wait(empty.at[slot])

        inner = pl.ds(k * TILE_K, TILE_K)
        plgpu.copy_gmem_to_smem(
          lhs.at[rows, inner],
          lhs_smem.at[slot, pl.ds(0, config.tile_m)],
          full.at[slot],
        )
        for matrix, smem in zip(matrices, matrices_smem, strict=True):
          plgpu.copy_gmem_to_smem(
            matrix.at[group, inner, columns], smem.at[slot], full.at[slot]
          )

      lax.fori_loop(0, num_steps, load_step, None)

    lax.fori_loop(0, mine, load_tile, None)

  @pl.when(warpgroup < COMPUTE)
  def _compute():
    plgpu.set_max_registers(232, action="increase")
    if config.tile_m > ROWS:
      my_rows = pl.ds(warpgroup * ROWS, ROWS)
      my_columns = pl.ds(0, config.tile_n)
      first_row, first_column = warpgroup * ROWS, 0
      width = config.tile_n
    else:
      width = config.tile_n // COMPUTE
      my_rows = pl.ds(0, ROWS)
      my_columns = pl.ds(warpgroup * width, width)
      first_row, first_column = 0, warpgroup * width

    def compute_tile(i, _):
      row_tile, column_tile = place(i)
      start, skip, size = (table[j, row_tile] for j in (1, 2, 3))
      first = jnp.clip(skip - first_row, 0, ROWS)
      stop = jnp.clip(skip + size - first_row, 0, ROWS)
      # A warpgroup without rows, at a group's end, multiplies all the same: a
      # branch or a loop of fewer steps around the products slowed all tiles
      # down by a sixth.
      products = pl.run_scoped(
        functools.partial(multiply, i),
        *[plgpu.ACC((ROWS, width), jnp.float32) for _ in matrices_smem],
      )
      last = lax.rem(i * num_steps + num_steps - 1, config.stages)
      plgpu.barrier_arrive(empty.at[last])
      result = epilogue(*products).astype(out.dtype)
      for j in range(width // COLUMNS):
        slot = j % OUT_SLOTS
        plgpu.wait_smem_to_gmem(OUT_SLOTS - 1, wait_read_only=True)
        out_smem[warpgroup, slot] = result[:, j * COLUMNS : (j + 1) * COLUMNS]
        plgpu.commit_smem()
        tiling.store_rows(
          out_smem.at[warpgroup, slot],
          out,
          first=first,
          count=jnp.maximum(stop - first, 0),
          row=start + first_row,
          column=column_tile * config.tile_n + first_column + j * COLUMNS,
        )

    def multiply(i, *accumulators):
      def multiply_step(k, _):
        step = i * num_steps + k
        slot = lax.rem(step, config.stages)
        plgpu.barrier_wait(full.at[slot])
        for accumulator, smem in zip(accumulators, matrices_smem, strict=True):
          plgpu.wgmma(
            accumulator,
            lhs_smem.at[slot, my_rows],
            smem.at[slot, :, my_columns],
          )
        plgpu.wgmma_wait(len(matrices_smem))

        # All but this step's products are done, so the step before may go.
        @pl.when(k > 0)
        def _():
          before = lax.rem(step + config.stages - 1, config.stages)
          plgpu.barrier_arrive(empty.at[before])

      lax.fori_loop(0, num_steps, multiply_step, None)
      return [accumulator[...] for accumulator in accumulators]

    lax.fori_loop(0, mine, compute_tile, None)
    plgpu.wait_smem_to_gmem(0)
