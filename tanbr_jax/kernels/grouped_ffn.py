"""A feed-forward block of each group over the rows of that group.

Letters: M rows, E groups (experts), D model width, F hidden width.
"""

import functools
import itertools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero

from tanbr_jax.checks.names import check_choice
from tanbr_jax.kernels import implementations, mosaic_tpu, tokamax
from tanbr_jax.kernels.activations import ACTIVATIONS, activate
from tanbr_jax.kernels.arrays import check_is_array
from tanbr_jax.kernels.grouped_matmul import grouped_matmul
from tanbr_jax.kernels.grouped_matmul import zero_tail as with_zero_tail
from tanbr_jax.kernels.implementations import Implementation


def grouped_ffn(
  x: jax.Array,
  w_in: jax.Array,
  w_out: jax.Array,
  group_sizes: jax.Array,
  *,
  w_gate: jax.Array | None = None,
  activation: str = "silu",
  zero_tail: bool = True,
  implementation: str | None = None,
) -> jax.Array:
  """Returns `(act(x w_gate) * (x w_in)) w_out` with each group's matrices.

  Without `w_gate` it is `act(x w_in) w_out`. The activation and the product
  with it are taken in float32. Derivatives of every order and in either mode
  are those of the products that it consists of.

  Args:
    x: [M, D] floating, rows sorted by group.
    w_in: [E, D, F], of the same type.
    w_out: [E, F, D], of the same type.
    group_sizes: [E] int32, at least 0, with a sum of at most M.
    w_gate: [E, D, F] of the same type, or None.
    activation: a key of `ACTIVATIONS`.
    zero_tail: whether rows past `sum(group_sizes)` come back as zeros, or may
      hold anything, which saves writing them. `combine` does not read them.
    implementation: None (the best one for the device), "xla", "mosaic_gpu"
      (which fuses all that is multiplied with x), "mosaic_tpu" or "tokamax".

  Returns:
    [M, D] of x's type.

  Raises:
    ValueError: if shapes or types disagree, the activation is unknown, or the
      implementation cannot run.
  """
  _check(x, w_in, w_out, group_sizes, w_gate, activation)
  args = (activation, zero_tail, x, w_gate, w_in, w_out, group_sizes)
  run = implementations.select(implementation, _TABLE, *args)
  return run(*args)


def _check(
  x: jax.Array,
  w_in: jax.Array,
  w_out: jax.Array,
  group_sizes: jax.Array,
  w_gate: jax.Array | None,
  activation: str,
) -> None:
  check_choice("activation", activation, ACTIVATIONS)
  gate = w_in if w_gate is None else w_gate
  check_is_array(
    x=x, w_in=w_in, w_out=w_out, w_gate=gate, group_sizes=group_sizes
  )
  if (
    (x.ndim, w_in.ndim) != (2, 3)
    or x.shape[1] != w_in.shape[1]
    or gate.shape != w_in.shape
    or w_out.shape != (w_in.shape[0], w_in.shape[2], w_in.shape[1])
    or group_sizes.shape != w_in.shape[:1]
    or {x.dtype, w_in.dtype, gate.dtype, w_out.dtype} != {x.dtype}
    or group_sizes.dtype != jnp.int32
  ):
    given = {
      "x": x,
      "w_in": w_in,
      "w_out": w_out,
      "w_gate": w_gate,
      "group_sizes": group_sizes,
    }
    raise ValueError(
      "needs x [M, D], w_in and w_gate [E, D, F], w_out [E, F, D] of one type "
      "and group_sizes [E] int32, got "
      + ", ".join(
        f"{name} {array.dtype}{array.shape}"
        for name, array in given.items()
        if array is not None
      )
    )


def _composed(
  implementation: str,
  activation: str,
  zero_tail: bool,
  x: jax.Array,
  w_gate: jax.Array | None,
  w_in: jax.Array,
  w_out: jax.Array,
  group_sizes: jax.Array,
) -> jax.Array:
  """Two or three grouped products, which are differentiable by themselves."""
  del zero_tail
  product = functools.partial(
    grouped_matmul, group_sizes=group_sizes, implementation=implementation
  )
  gate = None if w_gate is None else product(x, w_gate)
  hidden = activate(activation, product(x, w_in), gate)
  return product(hidden.astype(x.dtype), w_out)


_composed_xla = functools.partial(_composed, "xla")


def _kernels(
  activation, zero_tail, x, w_gate, w_in, w_out, group_sizes
) -> jax.Array:
  mosaic_gpu = implementations.mosaic_gpu()
  hidden = mosaic_gpu.grouped_gated_matmul(
    x, w_gate, w_in, group_sizes, activation
  )
  out = mosaic_gpu.grouped_matmul(hidden, w_out, group_sizes)
  return with_zero_tail(out, group_sizes) if zero_tail else out


@functools.partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def _fused(
  activation: str,
  zero_tail: bool,
  x: jax.Array,
  w_gate: jax.Array | None,
  w_in: jax.Array,
  w_out: jax.Array,
  group_sizes: jax.Array,
) -> jax.Array:
  run = implementations.on_platform(
    "cuda", _kernels, _composed_xla, activation, zero_tail
  )
  return run(x, w_gate, w_in, w_out, group_sizes)


def _fused_jvp(activation, zero_tail, primals, tangents):
  # What is not differentiated costs nothing.
  changes = [
    not isinstance(tangent, (SymbolicZero, type(None)))
    for tangent in tangents[:-1]
  ]

  # The fused kernel keeps no hidden activations: they are computed again.
  @jax.checkpoint
  def composed(*changed):
    changed = iter(changed)
    arrays = [
      next(changed) if is_changed else array
      for is_changed, array in zip(changes, primals[:-1], strict=True)
    ]
    return _composed("mosaic_gpu", activation, zero_tail, *arrays, primals[-1])

  def changed(arrays):
    return tuple(itertools.compress(arrays[:-1], changes))

  out = _fused(activation, zero_tail, *primals)
  _, tangent = jax.jvp(composed, changed(primals), changed(tangents))
  return out, tangent


_fused.defjvp(_fused_jvp, symbolic_zeros=True)


def _why_not_fused(
  activation, zero_tail, x, w_gate, w_in, w_out, group_sizes
) -> str | None:
  del zero_tail, group_sizes
  why_not, dtype = implementations.why_not_mosaic_gpu, x.dtype
  hidden_shape = (x.shape[0], w_in.shape[2])
  details = (x.shape, w_in.shape, dtype, activation, w_gate is not None)
  return (
    why_not("grouped_gated_matmul", *details)
    or why_not("grouped_matmul", hidden_shape, w_out.shape, dtype)
    # The gradient takes the first products apart.
    or why_not("grouped_matmul", x.shape, w_in.shape, dtype)
  )


def _composed_of(
  name: str, why_not_product: Callable[..., str | None]
) -> Implementation:
  """The FFN as products of that implementation."""

  def why_not(
    activation, zero_tail, x, w_gate, w_in, w_out, group_sizes
  ) -> str | None:
    del activation, zero_tail, w_gate
    hidden = jax.ShapeDtypeStruct((x.shape[0], w_in.shape[2]), x.dtype)
    return why_not_product(x, w_in, group_sizes) or why_not_product(
      hidden, w_out, group_sizes
    )

  return Implementation(functools.partial(_composed, name), why_not)


# None never comes as far as tokamax.
_TABLE = {
  "mosaic_gpu": Implementation(_fused, _why_not_fused),
  "mosaic_tpu": _composed_of("mosaic_tpu", mosaic_tpu.why_not),
  "xla": Implementation(_composed_xla),
  "tokamax": _composed_of("tokamax", tokamax.why_not),
}
