"""Grouped products on a TPU: the `megablox` kernel that ships inside JAX.

Letters: M rows, K and N their widths before and after, E groups.

Its grid is as long as the tiles in use, so that its time follows the rows of
the groups and not M. It was tested in Pallas' interpreter and not on a TPU;
the tiles are those that others have found good, not measured ones.
"""

import jax
import jax.numpy as jnp

from tanbr_jax.kernels import implementations

# Rows of the smallest tile of bfloat16.
_FEWEST_ROWS = 16
_LARGEST_TILE = (512, 1024, 1024)


def why_not(
  lhs: jax.Array, rhs: jax.Array, group_sizes: jax.Array
) -> str | None:
  """Returns why `grouped_matmul` cannot take these arrays here, or None."""
  del group_sizes
  if implementations.platform() != "tpu":
    return (
      f"it needs a TPU, the default device is a {implementations.platform()}"
    )
  if lhs.dtype not in (jnp.bfloat16, jnp.float32):
    return f"it needs bfloat16 or float32, got {lhs.dtype}"
  if 0 in (*lhs.shape, *rhs.shape):
    return (
      f"it needs arrays with elements, got lhs {lhs.shape}, rhs {rhs.shape}"
    )
  return None


def grouped_matmul(
  lhs: jax.Array,
  rhs: jax.Array,
  group_sizes: jax.Array,
  *,
  interpret: bool = False,
) -> jax.Array:
  """Multiplies the rows of each group with the group's matrix.

  Not differentiable; `kernels.grouped_matmul` is.

  Args:
    lhs: [M, K] bfloat16 or float32, rows sorted by group.
    rhs: [E, K, N], of the same type.
    group_sizes: [E] int32, with a sum of at most M.
    interpret: whether to run in Pallas' interpreter, on any device.

  Returns:
    [M, N] of the same type; rows past `sum(group_sizes)` are undefined.
  """
  # Imported here, as it takes half a second that only a TPU needs.
  from jax.experimental.pallas.ops.tpu.megablox import gmm

  num_rows = lhs.shape[0]
  tile = _tile(num_rows, *rhs.shape)
  padding = -num_rows % tile[0]
  lhs = jnp.pad(lhs, ((0, padding), (0, 0)))
  # The kernel mixes types and ranks, which a strict caller's settings refuse.
  with (
    jax.numpy_dtype_promotion("standard"),
    jax.numpy_rank_promotion("allow"),
  ):
    out = gmm(
      lhs,
      rhs,
      group_sizes,
      preferred_element_type=lhs.dtype,
      tiling=tile,
      interpret=interpret,
    )
  return out[:num_rows]


def _tile(
  num_rows: int, num_groups: int, width_before: int, width_after: int
) -> tuple[int, int, int]:
  """Rows near a group's mean, so that little of a tile is another's."""
  largest_rows, largest_before, largest_after = _LARGEST_TILE
  rows = 1 << max(num_rows // num_groups, 1).bit_length()
  return (
    max(_FEWEST_ROWS, min(rows, largest_rows)),
    min(width_before, largest_before),
    min(width_after, largest_after),
  )
