"""Tokens to the rows of their experts, and the rows' results back to tokens.

Letters: N tokens, K experts per token, D model width.

Both ways are gathers, and so are their gradients: what JAX would derive is a
scatter-add, many times slower on a GPU.
"""

import jax
import jax.numpy as jnp
from jax import lax

from tanbr_jax.kernels import implementations
from tanbr_jax.kernels.arrays import check_is_array
from tanbr_jax.kernels.implementations import Implementation
from tanbr_jax.kernels.multilinear import Multilinear
from tanbr_jax.kernels.permutation import Permutation

# Pairs of a token that one pass adds.
_UNROLLED = 16


def dispatch(
  x: jax.Array,
  permutation: Permutation,
  *,
  implementation: str | None = None,
) -> jax.Array:
  """Copies each token to the rows of its experts.

  Args:
    x: [N, D] floating.
    permutation: of the same N tokens.
    implementation: None (the best one for the device), "xla" or "mosaic_gpu".

  Returns:
    [N * K, D] sorted by group; rows past `sum(group_sizes)` are undefined,
    and the gradient at them does not matter.

  Raises:
    ValueError: if shapes disagree, or the implementation cannot run.
  """
  check_is_array(x=x)
  if x.ndim != 2 or x.shape[0] != permutation.place.shape[0]:
    raise ValueError(
      "x must be [N, D] for a permutation of N tokens, got "
      f"x {x.shape}, place {permutation.place.shape}"
    )
  args = x, permutation.place, permutation.source
  return implementations.select(implementation, _DISPATCH, *args)(*args)


def combine(
  rows: jax.Array,
  permutation: Permutation,
  gates: jax.Array,
  *,
  implementation: str | None = None,
) -> jax.Array:
  """Returns each token's sum over K of its gates times its experts' rows.

  Products and sums are taken in float32. A skipped pair adds nothing, nor
  does a row past the groups, whatever it holds.

  Args:
    rows: [N * K, D] floating, sorted by group.
    permutation: of N tokens.
    gates: [N, K] floating.
    implementation: None (the best one for the device) or "xla".

  Returns:
    [N, D] of the rows' type.

  Raises:
    ValueError: if shapes disagree, or the implementation cannot run.
  """
  check_is_array(rows=rows, gates=gates)
  place = permutation.place
  if (
    rows.ndim != 2 or rows.shape[0] != place.size or gates.shape != place.shape
  ):
    raise ValueError(
      "needs rows [N * K, D] and gates [N, K] for a permutation of N tokens, "
      f"got rows {rows.shape}, gates {gates.shape}, place {place.shape}"
    )
  args = rows, gates, place, permutation.source
  return implementations.select(implementation, _COMBINE, *args)(*args)


def _sum_of_pairs(
  rows: jax.Array, gates: jax.Array, place: jax.Array, source: jax.Array
) -> jax.Array:
  """[N, D] of the rows' type: K gathers, which XLA fuses into one pass."""
  del source
  num_pairs = place.size

  def add(total: jax.Array, pair: tuple) -> tuple[jax.Array, None]:
    place, gate = pair
    picked = jnp.take(rows, place, axis=0, mode="clip").astype(jnp.float32)
    product = picked * gate.astype(jnp.float32)[:, None]
    return total + jnp.where(place[:, None] < num_pairs, product, 0), None

  shape = place.shape[0], rows.shape[1]
  total = jnp.zeros_like(rows, jnp.float32, shape=shape)
  unroll = max(1, min(place.shape[1], _UNROLLED))
  total, _ = lax.scan(add, total, (place.T, gates.T), unroll=unroll)
  return total.astype(rows.dtype)


def _rows_grad(
  grad: jax.Array,
  rows: jax.ShapeDtypeStruct,
  gates: jax.Array,
  place: jax.Array,
  source: jax.Array,
) -> jax.Array:
  gate = jnp.zeros_like(gates, shape=place.size)
  gate = gate.at[place].set(gates, mode="drop", unique_indices=True)
  copies = _COPY_XLA(grad.astype(jnp.float32), place, source)
  return (copies * gate.astype(jnp.float32)[:, None]).astype(rows.dtype)


def _gates_grad(
  grad: jax.Array,
  rows: jax.Array,
  gates: jax.ShapeDtypeStruct,
  place: jax.Array,
  source: jax.Array,
) -> jax.Array:
  del source
  picked = rows.at[place].get(mode="fill", fill_value=0).astype(jnp.float32)
  out = jnp.sum(picked * grad.astype(jnp.float32)[:, None], axis=-1)
  return out.astype(gates.dtype)


def _copies_grad(
  grad: jax.Array,
  x: jax.ShapeDtypeStruct,
  place: jax.Array,
  source: jax.Array,
) -> jax.Array:
  del x
  return _SUM_XLA(grad, jnp.ones_like(place, jnp.float32), place, source)


def _copy_xla(x: jax.Array, place: jax.Array, source: jax.Array) -> jax.Array:
  del place
  return x[source]


def _kernel(x: jax.Array, place: jax.Array, source: jax.Array) -> jax.Array:
  del source
  return implementations.mosaic_gpu().dispatch(x, place)


def _copy_mosaic_gpu(
  x: jax.Array, place: jax.Array, source: jax.Array
) -> jax.Array:
  run = implementations.on_platform("cuda", _kernel, _copy_xla)
  return run(x, place, source)


_COPY_XLA = Multilinear(_copy_xla, (_copies_grad,))
_SUM_XLA = Multilinear(_sum_of_pairs, (_rows_grad, _gates_grad))
_DISPATCH = {
  "mosaic_gpu": Implementation(
    Multilinear(_copy_mosaic_gpu, (_copies_grad,)),
    lambda x, place, source: implementations.why_not_mosaic_gpu(
      "dispatch", x.shape, place.shape, x.dtype
    ),
  ),
  "xla": Implementation(_COPY_XLA),
}
_COMBINE = {"xla": Implementation(_SUM_XLA)}
