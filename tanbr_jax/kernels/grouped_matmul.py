"""Rows sorted by group, each group times its own matrix.

Letters: M rows, K and N their widths before and after, E groups.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from tanbr_jax.kernels import (
  grouped_blocks,
  implementations,
  mosaic_tpu,
  tokamax,
)
from tanbr_jax.kernels.implementations import Implementation

_Primal = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]


def grouped_matmul(
  lhs: jax.Array,
  rhs: jax.Array,
  group_sizes: jax.Array,
  *,
  implementation: str | None = None,
) -> jax.Array:
  """Multiplies the rows of each group with the group's matrix.

  Rows `[0, group_sizes[0])` of `lhs` are multiplied with `rhs[0]`, the next
  `group_sizes[1]` with `rhs[1]`, and so on.

  Args:
    lhs: [M, K] floating, rows sorted by group.
    rhs: [E, K, N], of the same type.
    group_sizes: [E] int32, at least 0, with a sum of at most M.
    implementation: None (the best one for the device), "xla", "mosaic_gpu",
      "mosaic_tpu" or "tokamax".

  Returns:
    [M, N] of the same type; rows past `sum(group_sizes)` are zeros.

  Raises:
    ValueError: if shapes or types disagree, or the implementation cannot run.
  """
  if (
    (lhs.ndim, rhs.ndim) != (2, 3)
    or lhs.shape[1] != rhs.shape[1]
    or rhs.shape[:1] != group_sizes.shape
    or lhs.dtype != rhs.dtype
    or group_sizes.dtype != jnp.int32
    or 0 in rhs.shape
  ):
    raise ValueError(
      "needs lhs [M, K], rhs [E, K, N] of one type, which is not empty, and "
      "group_sizes [E] int32, "
      f"got lhs {lhs.dtype}{lhs.shape}, rhs {rhs.dtype}{rhs.shape}, "
      f"group_sizes {group_sizes.dtype}{group_sizes.shape}"
    )
  run = implementations.select(implementation, _TABLE, lhs, rhs, group_sizes)
  return run(lhs, rhs, group_sizes)


def zero_tail(rows: jax.Array, group_sizes: jax.Array) -> jax.Array:
  """Returns rows [M, N] with zeros past `sum(group_sizes)`."""
  is_in = jnp.arange(rows.shape[0], dtype=jnp.int32) < jnp.sum(group_sizes)
  return jnp.where(is_in[:, None], rows, jnp.zeros_like(rows))


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _product(
  name: str, lhs: jax.Array, rhs: jax.Array, group_sizes: jax.Array
) -> jax.Array:
  return _PRIMALS[name](lhs, rhs, group_sizes)


def _forward(
  name: str, lhs: jax.Array, rhs: jax.Array, group_sizes: jax.Array
) -> tuple[jax.Array, tuple[jax.Array, jax.Array, jax.Array]]:
  return _PRIMALS[name](lhs, rhs, group_sizes), (lhs, rhs, group_sizes)


def _backward(
  name: str,
  saved: tuple[jax.Array, jax.Array, jax.Array],
  grad: jax.Array,
) -> tuple[jax.Array, jax.Array, np.ndarray]:
  lhs, rhs, group_sizes = saved
  transposed = grad, rhs.swapaxes(1, 2), group_sizes
  # A kernel that takes K x N need not take N x K.
  can = _TABLE[name].why_not(*transposed) is None
  lhs_grad = _PRIMALS[name if can else "xla"](*transposed)
  rhs_grad = grouped_blocks.outer(lhs, grad, group_sizes)
  no_grad = np.zeros(group_sizes.shape, jax.dtypes.float0)
  return lhs_grad, rhs_grad, no_grad


_product.defvjp(_forward, _backward)


def _mosaic_gpu(
  lhs: jax.Array, rhs: jax.Array, group_sizes: jax.Array
) -> jax.Array:
  return implementations.mosaic_gpu().grouped_matmul(lhs, rhs, group_sizes)


def _why_not_mosaic_gpu(
  lhs: jax.Array, rhs: jax.Array, group_sizes: jax.Array
) -> str | None:
  del group_sizes
  return implementations.why_not_mosaic_gpu(
    "grouped_matmul", lhs.shape, rhs.shape, lhs.dtype
  )


def _with_zero_tail(kernel: _Primal) -> _Primal:
  return lambda lhs, rhs, group_sizes: zero_tail(
    kernel(lhs, rhs, group_sizes), group_sizes
  )


def _on(platform: str, kernel: _Primal) -> _Primal:
  return implementations.on_platform(
    platform, _with_zero_tail(kernel), grouped_blocks.product
  )


_PRIMALS: dict[str, _Primal] = {
  "mosaic_gpu": _on("cuda", _mosaic_gpu),
  "mosaic_tpu": _on("tpu", mosaic_tpu.grouped_matmul),
  "xla": grouped_blocks.product,
  "tokamax": _with_zero_tail(tokamax.grouped_matmul),
}


def _entry(name: str, *why_not: Callable[..., str | None]) -> Implementation:
  return Implementation(functools.partial(_product, name), *why_not)


# None never comes as far as tokamax.
_TABLE = {
  "mosaic_gpu": _entry("mosaic_gpu", _why_not_mosaic_gpu),
  "mosaic_tpu": _entry("mosaic_tpu", mosaic_tpu.why_not),
  "xla": _entry("xla"),
  "tokamax": _entry("tokamax", tokamax.why_not),
}
