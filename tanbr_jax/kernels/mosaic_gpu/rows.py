"""Copies rows to the places that their tokens' experts have for them."""

import jax
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plgpu

MAX_BOX = 256  # elements along one axis of a copy
MAX_WIDTH = 16384
MIN_BLOCKS = 256  # rather than many rows in each
SMEM_BYTES = 32 * 1024  # of one block: several blocks share a multiprocessor


def scatter(x: jax.Array, place: jax.Array) -> jax.Array:
  """Writes every row of x to each of its places.

  A row is read once and written K times, and a skipped pair costs nothing; a
  gather of the sorted rows would read each row K times.

  Args:
    x: [N, D]; D a multiple of 64 of at most `MAX_WIDTH`.
    place: [N, K] int32, rows of the result, each at most once; N * K for a
      pair that is skipped.

  Returns:
    [N * K, D]; rows that are nobody's place are not written.
  """
  num_tokens, width = x.shape
  num_places = place.shape[1]
  box = next(size for size in (256, 128, 64) if width % size == 0)
  folded = x.reshape(num_tokens, width // box, box)
  fits = [
    rows
    for rows in (8, 4, 2)
    if num_tokens % rows == 0
    and num_tokens >= rows * MIN_BLOCKS
    and rows * width * x.dtype.itemsize <= SMEM_BYTES
  ]
  rows = fits[0] if fits else 1
  num_rows = num_tokens * num_places
  kernel = plgpu.kernel(
    lambda *refs: _body(*refs, rows=rows, num_rows=num_rows),
    out_type=jax.ShapeDtypeStruct((num_rows, *folded.shape[1:]), x.dtype),
    grid=(num_tokens // rows,),
    grid_names=("block",),
    scratch_types=[
      plgpu.SMEM((rows, *folded.shape[1:]), x.dtype),
      plgpu.Barrier(),
    ],
  )
  return kernel(place, folded).reshape(num_rows, width)


def _body(place, x, out, smem, barrier, *, rows, num_rows):
  first = jax.lax.axis_index("block") * rows
  plgpu.copy_gmem_to_smem(x.at[pl.ds(first, rows)], smem, barrier)
  # Read while the rows are on their way.
  places = [
    [place[first + i, k] for k in range(place.shape[1])] for i in range(rows)
  ]
  plgpu.barrier_wait(barrier)
  for i, row_places in enumerate(places):
    for target in row_places:

      @pl.when((target >= 0) & (target < num_rows))
      def _(i=i, target=target):
        plgpu.copy_smem_to_gmem(
          smem.at[pl.ds(i, 1)], out.at[pl.ds(target, 1)], commit_group=False
        )

  plgpu.commit_smem_to_gmem_group()
  plgpu.wait_smem_to_gmem(0)
