"""Rows sorted by group, each group times its own matrix.

Letters: M rows, K and N their widths before and after, E groups.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

from tanbr_jax.kernels import (
  grouped_blocks,
  implementations,
  mosaic_tpu,
  tokamax,
)
from tanbr_jax.kernels.arrays import check_is_array
from tanbr_jax.kernels.implementations import Implementation
from tanbr_jax.kernels.multilinear import Multilinear

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
  `group_sizes[1]` with `rhs[1]`, and so on. Derivatives of every order and in
  either mode are such products again, of the same implementation where it can.

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
  check_is_array(lhs=lhs, rhs=rhs, group_sizes=group_sizes)
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


def _run(
  name: str, lhs: jax.Array, rhs: jax.Array, group_sizes: jax.Array
) -> jax.Array:
  return _PRIMALS[name](lhs, rhs, group_sizes)


def _product(
  name: str, lhs: jax.Array, rhs: jax.Array, group_sizes: jax.Array
) -> jax.Array:
  """The product of that implementation, or of XLA for what it cannot take."""
  # A kernel that takes K x N need not take N x K.
  can = _TABLE[name].why_not(lhs, rhs, group_sizes) is None
  return _TABLE[name if can else "xla"].run(lhs, rhs, group_sizes)


def _lhs_grad(
  name: str,
  grad: jax.Array,
  lhs: jax.ShapeDtypeStruct,
  rhs: jax.Array,
  group_sizes: jax.Array,
) -> jax.Array:
  del lhs
  return _product(name, grad, rhs.swapaxes(1, 2), group_sizes)


def _rhs_grad(
  name: str,
  grad: jax.Array,
  lhs: jax.Array,
  rhs: jax.ShapeDtypeStruct,
  group_sizes: jax.Array,
) -> jax.Array:
  del rhs
  return _outer(name)(lhs, grad, group_sizes)


@functools.cache
def _outer(name: str) -> Multilinear:
  """The transpose of the product, whose own transposes are products again."""

  def left_grad(grad, left, right, group_sizes):
    del left
    return _product(name, right, grad.swapaxes(1, 2), group_sizes)

  def right_grad(grad, left, right, group_sizes):
    del right
    return _product(name, left, grad, group_sizes)

  return Multilinear(grouped_blocks.outer, (left_grad, right_grad))


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
  of_name = functools.partial
  run = Multilinear(
    of_name(_run, name), (of_name(_lhs_grad, name), of_name(_rhs_grad, name))
  )
  return Implementation(run, *why_not)


# None never comes as far as tokamax.
_TABLE = {
  "mosaic_gpu": _entry("mosaic_gpu", _why_not_mosaic_gpu),
  "mosaic_tpu": _entry("mosaic_tpu", mosaic_tpu.why_not),
  "xla": _entry("xla"),
  "tokamax": _entry("tokamax", tokamax.why_not),
}
