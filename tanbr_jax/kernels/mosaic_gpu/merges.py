"""Many weighted sums of the same stacked arrays, which are read once."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plgpu

BOX = 256  # elements along one axis of a copy
COLUMNS = 1024  # of one warpgroup: 8 a thread
COMPUTE = 2  # warpgroups
TILE = COMPUTE * COLUMNS  # elements of an expert in one stage
EXPERTS = 8  # of one stage, at most
STAGES = 6
RESULTS = 16  # at most, whose sums a thread holds in registers
MAX_EXPERTS = 256  # whose weights fit beside the stages
ROW = 32  # of the table of weights, float32


def weighted_sums(
  experts: jax.Array, weights: jax.Array, *, num_blocks: int
) -> jax.Array:
  """Returns `sum_e weights[r, e] * experts[e]` for every r.

  Products and sums are float32. An expert of weight 0 adds nothing, whatever
  it holds.

  Args:
    experts: [E, C] float16 or bfloat16; C a multiple of `TILE`.
    weights: [R, E] float32, R at most 16.
    num_blocks: multiprocessors of the device.

  Returns:
    [R, C] of the experts' type.
  """
  num_experts, size = experts.shape
  num_results = weights.shape[0]
  in_stage = next(n for n in (EXPERTS, 4, 2, 1) if num_experts % n == 0)
  kernel = plgpu.kernel(
    functools.partial(_body, num_blocks=num_blocks),
    out_type=jax.ShapeDtypeStruct(
      (num_results, size // BOX, BOX), experts.dtype
    ),
    grid=(num_blocks,),
    grid_names=("block",),
    num_threads=COMPUTE + 1,
    thread_name="warpgroup",
    scratch_types=[
      plgpu.SMEM((STAGES, in_stage, TILE // BOX, BOX), experts.dtype),
      plgpu.SMEM((num_experts, ROW), jnp.float32),
      plgpu.Barrier(),
      plgpu.Barrier(num_barriers=STAGES),
      plgpu.Barrier(num_arrivals=COMPUTE, num_barriers=STAGES),
    ],
    compiler_params=plgpu.CompilerParams(approx_math=True),
  )
  # One row an expert: its weights, then whether one of them is zero. No
  # reduction, which would be a kernel of its own.
  has_zero = functools.reduce(jnp.logical_or, [w == 0 for w in weights])
  rows = jnp.concatenate([weights, has_zero.astype(jnp.float32)[None]])
  table = jnp.pad(rows, ((0, ROW - num_results - 1), (0, 0))).T
  out = kernel(experts.reshape(num_experts, size // BOX, BOX), table)
  return out.reshape(num_results, size)


class _Refs(NamedTuple):
  """The arrays and barriers of one block, and the tiles that it computes."""

  experts: Any  # [E, C / BOX, BOX]
  table: Any  # [E, ROW]
  out: Any  # [R, C / BOX, BOX]
  smem: Any  # [STAGES, experts of a stage, TILE / BOX, BOX]
  weights: Any  # the table in shared memory
  loaded: Any
  full: Any
  empty: Any

  @property
  def in_stage(self) -> int:
    """Experts of one stage."""
    return self.smem.shape[1]

  @property
  def num_steps(self) -> int:
    """Stages of one tile."""
    return self.experts.shape[0] // self.in_stage

  def num_tiles(self, num_blocks: int) -> jax.Array:
    """Tiles of this block: every `num_blocks`-th, from its own number on."""
    total = self.experts.shape[1] * BOX // TILE
    left = total - lax.axis_index("block") + num_blocks - 1
    return lax.div(left, num_blocks)


def _body(*refs, num_blocks):
  refs = _Refs(*refs)
  warpgroup = lax.axis_index("warpgroup")

  @pl.when(warpgroup == COMPUTE)
  def _():
    plgpu.set_max_registers(40, action="decrease")
    _load(refs, num_blocks)

  @pl.when(warpgroup < COMPUTE)
  def _():
    plgpu.set_max_registers(232, action="increase")
    _sum(refs, num_blocks, warpgroup)


def _load(refs: _Refs, num_blocks: int) -> None:
  """The memory warpgroup: the weights, then stage after stage."""
  plgpu.copy_gmem_to_smem(refs.table, refs.weights, refs.loaded)
  block, boxes = lax.axis_index("block"), TILE // BOX

  def load(step, _):
    slot = lax.rem(step, STAGES)
    tile = block + lax.div(step, refs.num_steps) * num_blocks
    first = lax.rem(step, refs.num_steps) * refs.in_stage

    @pl.when(step >= STAGES)
    def _():
      plgpu.barrier_wait(refs.empty.at[slot])

    plgpu.copy_gmem_to_smem(
      refs.experts.at[pl.ds(first, refs.in_stage), pl.ds(tile * boxes, boxes)],
      refs.smem.at[slot],
      refs.full.at[slot],
    )

  steps = refs.num_tiles(num_blocks) * refs.num_steps
  lax.fori_loop(0, steps, load, None)


def _sum(refs: _Refs, num_blocks: int, warpgroup) -> None:
  """A compute warpgroup: its columns of every result, one tile at a time."""
  num_results, boxes = refs.out.shape[0], COLUMNS // BOX
  block = lax.axis_index("block")
  # All stages use the weights, which are loaded once.
  plgpu.barrier_wait(refs.loaded)

  def add_stage(k, sums, *, tile_step):
    step = tile_step + k
    slot = lax.rem(step, STAGES)
    plgpu.barrier_wait(refs.full.at[slot])
    rows = [k * refs.in_stage + e for e in range(refs.in_stage)]

    def add_experts(add, sums):
      for e, row in enumerate(rows):
        x = refs.smem[slot, e, pl.ds(warpgroup * boxes, boxes)]
        x = x.astype(jnp.float32)
        scales = [refs.weights[row, r] for r in range(num_results)]
        pairs = zip(sums, scales, strict=True)
        sums = tuple(add(total, scale, x) for total, scale in pairs)
      return sums

    # Only a stage with a weight of 0 pays for leaving its expert out.
    sums = lax.cond(
      sum(refs.weights[row, num_results] for row in rows) > 0,
      functools.partial(add_experts, _add_selected),
      functools.partial(add_experts, _add),
      sums,
    )
    plgpu.barrier_arrive(refs.empty.at[slot])
    return sums

  def sum_tile(i, _):
    # The sums of a tile stay in registers over all of its stages.
    layout = plgpu.Layout.WG_STRIDED((boxes, BOX), vec_size=8)
    sums = tuple(
      plgpu.layout_cast(jnp.zeros((boxes, BOX), jnp.float32), layout)
      for _ in range(num_results)
    )
    add = functools.partial(add_stage, tile_step=i * refs.num_steps)
    sums = lax.fori_loop(0, refs.num_steps, add, sums)
    # Each warpgroup writes its own columns of every result.
    first = ((block + i * num_blocks) * COMPUTE + warpgroup) * boxes
    for r, total in enumerate(sums):
      refs.out[r, pl.ds(first, boxes)] = total.astype(refs.out.dtype)

  lax.fori_loop(0, refs.num_tiles(num_blocks), sum_tile, None)


def _add(total, scale, x):
  return total + scale * x


def _add_selected(total, scale, x):
  # Zero times what is not finite would not be zero.
  return lax.cond(scale == 0, lambda total, *_: total, _add, total, scale, x)
