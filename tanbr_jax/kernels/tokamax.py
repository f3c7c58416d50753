"""Grouped products by tokamax, the kept library of kernels for JAX.

tokamax needs Python >= 3.12 and jax >= 0.11.1. Its `ragged_dot` (version
0.0.17) picks by device: on Hopper and Blackwell its own Mosaic kernels for
bfloat16 and float16, whose grid is fixed by the number of rows, in use or not;
otherwise Triton; otherwise, and so on a CPU, `jax.lax.ragged_dot`, which
multiplies every group with every row. It runs only when it is asked for.
"""

import importlib.util

import jax


def why_not(*args: jax.Array) -> str | None:
  """Returns why `grouped_matmul` cannot run here, or None."""
  del args
  if importlib.util.find_spec("tokamax") is None:
    return "tokamax (Python >= 3.12, jax >= 0.11.1) is not installed"
  return None


@jax.custom_batching.sequential_vmap
def grouped_matmul(
  lhs: jax.Array, rhs: jax.Array, group_sizes: jax.Array
) -> jax.Array:
  """Multiplies the rows of each group with the group's matrix.

  Args:
    lhs: [M, K] floating, rows sorted by group.
    rhs: [E, K, N], of the same type.
    group_sizes: [E] int32, with a sum of at most M.

  Returns:
    [M, N] of the same type; rows past `sum(group_sizes)` are undefined.
  """
  import tokamax

  return tokamax.ragged_dot(lhs, rhs, group_sizes)
