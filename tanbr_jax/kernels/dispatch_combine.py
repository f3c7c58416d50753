"""Tokens to the rows of their experts, and the rows' results back to tokens.

Letters: N tokens, K experts per token, D model width.

Both ways are gathers, and so are their gradients: what JAX would derive is a
scatter-add, many times slower on a GPU.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

from tanbr_jax.kernels import implementations
from tanbr_jax.kernels.implementations import Implementation
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
  if x.ndim != 2 or x.shape[0] != permutation.place.shape[0]:
    raise ValueError(
      "x must be [N, D] for a permutation of N tokens, got "
      f"x {x.shape}, place {permutation.place.shape}"
    )
  run = implementations.select(implementation, _DISPATCH, x, permutation)
  return run(x, permutation)


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
  place = permutation.place
  if (
    rows.ndim != 2 or rows.shape[0] != place.size or gates.shape != place.shape
  ):
    raise ValueError(
      "needs rows [N * K, D] and gates [N, K] for a permutation of N tokens, "
      f"got rows {rows.shape}, gates {gates.shape}, place {place.shape}"
    )
  run = implementations.select(
    implementation, _COMBINE, rows, permutation, gates
  )
  return run(rows, permutation, gates)


@jax.jit
def _sum_of_pairs(
  rows: jax.Array, place: jax.Array, gates: jax.Array
) -> jax.Array:
  """[N, D] of the rows' type: K gathers, which XLA fuses into one pass."""
  num_pairs = place.size

  def add(total: jax.Array, pair: tuple) -> tuple[jax.Array, None]:
    place, gate = pair
    picked = jnp.take(rows, place, axis=0, mode="clip").astype(jnp.float32)
    product = picked * gate.astype(jnp.float32)[:, None]
    return total + jnp.where(place[:, None] < num_pairs, product, 0), None

  total = jnp.zeros((place.shape[0], rows.shape[1]), jnp.float32)
  unroll = max(1, min(place.shape[1], _UNROLLED))
  total, _ = lax.scan(add, total, (place.T, gates.T), unroll=unroll)
  return total.astype(rows.dtype)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _dispatch(
  copy: Callable[..., jax.Array], x: jax.Array, permutation: Permutation
) -> jax.Array:
  return copy(x, permutation)


def _dispatch_forward(
  copy: Callable[..., jax.Array], x: jax.Array, permutation: Permutation
) -> tuple[jax.Array, jax.Array]:
  return copy(x, permutation), permutation.place


def _dispatch_backward(
  copy: Callable[..., jax.Array], place: jax.Array, grad: jax.Array
) -> tuple[jax.Array, None]:
  del copy
  ones = jnp.ones(place.shape, jnp.float32)
  return _sum_of_pairs(grad, place, ones), None


_dispatch.defvjp(_dispatch_forward, _dispatch_backward)


def _copy_xla(x: jax.Array, permutation: Permutation) -> jax.Array:
  return x[permutation.source]


def _kernel(x: jax.Array, permutation: Permutation) -> jax.Array:
  return implementations.mosaic_gpu().dispatch(x, permutation.place)


def _copy_mosaic_gpu(x: jax.Array, permutation: Permutation) -> jax.Array:
  run = implementations.on_platform("cuda", _kernel, _copy_xla)
  return run(x, permutation)


_DISPATCH = {
  "mosaic_gpu": Implementation(
    functools.partial(_dispatch, _copy_mosaic_gpu),
    lambda x, permutation: implementations.why_not_mosaic_gpu(
      "dispatch", x.shape, permutation.place.shape, x.dtype
    ),
  ),
  "xla": Implementation(functools.partial(_dispatch, _copy_xla)),
}


@jax.custom_vjp
def _combine_xla(
  rows: jax.Array, permutation: Permutation, gates: jax.Array
) -> jax.Array:
  return _sum_of_pairs(rows, permutation.place, gates)


def _combine_forward(
  rows: jax.Array, permutation: Permutation, gates: jax.Array
) -> tuple[jax.Array, tuple[jax.Array, Permutation, jax.Array]]:
  out = _sum_of_pairs(rows, permutation.place, gates)
  return out, (rows, permutation, gates)


def _combine_backward(
  saved: tuple[jax.Array, Permutation, jax.Array], grad: jax.Array
) -> tuple[jax.Array, None, jax.Array]:
  rows, (place, source, _), gates = saved
  grad = grad.astype(jnp.float32)
  gate = jnp.zeros(place.size, gates.dtype)
  gate = gate.at[place].set(gates, mode="drop", unique_indices=True)
  rows_grad = grad[source] * gate.astype(jnp.float32)[:, None]
  picked = rows.at[place].get(mode="fill", fill_value=0)
  picked = picked.astype(jnp.float32)
  gates_grad = jnp.sum(picked * grad[:, None], axis=-1)
  return rows_grad.astype(rows.dtype), None, gates_grad.astype(gates.dtype)


_combine_xla.defvjp(_combine_forward, _combine_backward)
_COMBINE = {"xla": Implementation(_combine_xla)}
