"""Many weighted sums of the same stacked arrays, which are read once."""

import functools

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


def _body(
  experts, table, out, smem, weights, loaded, full, empty, *, num_blocks
):
  warpgroup = lax.axis_index("warpgroup")
  block = lax.axis_index("block")
  num_experts, num_boxes, _ = experts.shape
  num_results = out.shape[0]
  boxes = COLUMNS // BOX  # of one warpgroup
  in_stage = smem.shape[1]
  num_steps = num_experts // in_stage
  total = num_boxes // (COMPUTE * boxes)
  mine = lax.div(total - block + num_blocks - 1, num_blocks)

  @pl.when(warpgroup == COMPUTE)
  def _memory():
    plgpu.set_max_registers(40, action="decrease")
    plgpu.copy_gmem_to_smem(table, weights, loaded)

    def load(step, _):
      slot = lax.rem(step, STAGES)
      tile = block + lax.div(step, num_steps) * num_blocks
      first = lax.rem(step, num_steps) * in_stage

      @pl.when(step >= STAGES)
      def _():
        plgpu.barrier_wait(empty.at[slot])

      plgpu.copy_gmem_to_smem(
        experts.at[
          pl.ds(first, in_stage), pl.ds(tile * COMPUTE * boxes, COMPUTE * boxes)
        ],
        smem.at[slot],
        full.at[slot],
      )

    lax.fori_loop(0, mine * num_steps, load, None)

  @pl.when(warpgroup < COMPUTE)
  def _compute():
    plgpu.set_max_registers(232, action="increase")
    plgpu.barrier_wait(loaded)
    mine_in_stage = pl.ds(warpgroup * boxes, boxes)

    def add_stage(k, sums, *, tile_step):
      step = tile_step + k
      slot = lax.rem(step, STAGES)
      plgpu.barrier_wait(full.at[slot])

      def add_experts(add, sums):
        for e in range(in_stage):
          x = smem[slot, e, mine_in_stage].astype(jnp.float32)
          row = k * in_stage + e
          scales = [weights[row, r] for r in range(num_results)]
          sums = tuple(
            add(total, scale, x)
            for total, scale in zip(sums, scales, strict=True)
          )
        return sums

      sums = lax.cond(
        sum(weights[k * in_stage + e, num_results] for e in range(in_stage))
        > 0,
        functools.partial(add_experts, _add_selected),
        functools.partial(add_experts, _add),
        sums,
      )
      plgpu.barrier_arrive(empty.at[slot])
      return sums

    def sum_tile(i, _):
      sums = tuple(
        plgpu.layout_cast(
          jnp.zeros((boxes, BOX), jnp.float32),
          plgpu.Layout.WG_STRIDED((boxes, BOX), vec_size=8),
        )
        for _ in range(num_results)
      )
      sums = lax.fori_loop(
        0,
        num_steps,
        functools.partial(add_stage, tile_step=i * num_steps),
        sums,
      )
      first = ((block + i * num_blocks) * COMPUTE + warpgroup) * boxes
      for r, total in enumerate(sums):
        out[r, pl.ds(first, boxes)] = total.astype(out.dtype)

    lax.fori_loop(0, mine, sum_tile, None)


def _add(total, scale, x):
  return total + scale * x


def _add_selected(total, scale, x):
  # Zero times what is not finite would not be zero.
  return lax.cond(scale == 0, lambda total, *_: total, _add, total, scale, x)
