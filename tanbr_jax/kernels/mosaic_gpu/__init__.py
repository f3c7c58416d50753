"""Pallas kernels for Hopper GPUs, written for Mosaic GPU.

They take bfloat16 and float16, have no gradients of their own and leave the
rows past the groups unwritten; `tanbr_jax.kernels` adds what is missing. Each
`supports_...` returns why an operation cannot run with such arguments, or
None.
"""

import math

import jax
import jax.numpy as jnp

from tanbr_jax.kernels.mosaic_gpu import (
  grouped,
  merges,
  routing,
  rows,
  tiles,
)

_DTYPES = (jnp.bfloat16, jnp.float16)
# Written out: JAX's own have derivatives of their own, which a kernel cannot
# hold. The exact "gelu" is missing, as the error function has no lowering.
_ACTIVATIONS = {
  "gelu_tanh": lambda x: x * jax.nn.sigmoid(1.5957691 * (x + 0.044715 * x**3)),
  "relu": lambda x: jnp.maximum(x, 0.0),
  "relu2": lambda x: jnp.maximum(x, 0.0) * jnp.maximum(x, 0.0),
  "silu": lambda x: x * jax.nn.sigmoid(x),
}
_FEW_TOKENS = 64
_MOST_TOKENS = 65536
_DEFAULT_BLOCKS = 132  # multiprocessors of an H100


def why_not() -> str | None:
  """Returns why the default device cannot run these kernels, or None."""
  if jax.default_backend() != "gpu":
    return f"it needs a Hopper GPU, the device is a {jax.default_backend()}"
  device = jax.local_devices(backend="gpu")[0]
  capability = str(getattr(device, "compute_capability", "unknown"))
  if capability != "9.0":
    return (
      "it needs a Hopper GPU (compute capability 9.0), got "
      f"{device.device_kind} ({capability})"
    )
  return None


def num_blocks() -> int:
  """Returns the multiprocessors of the default device."""
  if jax.default_backend() != "gpu":
    return _DEFAULT_BLOCKS
  return getattr(jax.local_devices()[0], "core_count", _DEFAULT_BLOCKS)


def grouped_matmul(
  lhs: jax.Array, rhs: jax.Array, group_sizes: jax.Array
) -> jax.Array:
  """[M, N] of lhs [M, K], rhs [E, K, N]; see `kernels.grouped_matmul`."""
  config = _config(lhs.shape, rhs.shape, num_matrices=1)
  return _run(lhs, (rhs,), group_sizes, lambda product: product, config)


def grouped_gated_matmul(
  lhs: jax.Array,
  w_gate: jax.Array | None,
  w_in: jax.Array,
  group_sizes: jax.Array,
  activation: str,
) -> jax.Array:
  """[M, F], `act(lhs w_gate) * (lhs w_in)`, or `act(lhs w_in)`."""
  act = _ACTIVATIONS[activation]
  if w_gate is None:
    config = _config(lhs.shape, w_in.shape, num_matrices=1)
    return _run(lhs, (w_in,), group_sizes, act, config)
  config = _config(lhs.shape, w_in.shape, num_matrices=2)
  return _run(
    lhs, (w_gate, w_in), group_sizes, lambda gate, up: act(gate) * up, config
  )


def dispatch(x: jax.Array, place: jax.Array) -> jax.Array:
  """[N * K, D] of x [N, D]; see `kernels.dispatch`."""
  return rows.scatter(x, place)


def weighted_sum(experts: jax.Array, weights: jax.Array) -> jax.Array:
  """[R, ...] of experts [E, ...], weights [R, E]; one pass for 16 results."""
  flat = experts.reshape(experts.shape[0], -1)
  weights = weights.astype(jnp.float32)
  parts = [
    merges.weighted_sums(
      flat, weights[first : first + merges.RESULTS], num_blocks=num_blocks()
    )
    for first in range(0, weights.shape[0], merges.RESULTS)
  ]
  out = parts[0] if len(parts) == 1 else jnp.concatenate(parts)
  return out.reshape(-1, *experts.shape[1:])


def largest_ids(scores: jax.Array, count: int) -> jax.Array:
  """[N, K] of scores [N, E]; see `kernels.largest_ids`."""
  # A layout has eight columns at least; what is added is never chosen.
  padding = -scores.shape[1] % routing.PACKED
  scores = jnp.pad(scores, ((0, 0), (0, padding)), constant_values=-jnp.inf)
  return routing.largest_ids(scores, count)


def block_ranks(
  expert_ids: jax.Array, num_groups: int
) -> tuple[jax.Array, jax.Array, int]:
  """Ranks [N, K] in blocks of tokens, counts [blocks, E], tokens a block."""
  return *routing.block_ranks(expert_ids, num_groups), routing.TOKENS


def supports_largest_ids(
  scores_shape: tuple[int, ...], count: int, dtype: jnp.dtype
) -> str | None:
  """Returns why `largest_ids` cannot run, or None."""
  num_tokens = math.prod(scores_shape[:-1])
  if num_tokens < _FEW_TOKENS:
    return f"few tokens are as fast in XLA, got scores {scores_shape}"
  if dtype != jnp.float32 or scores_shape[-1] > routing.MAX_COLUMNS:
    return (
      f"it needs float32 scores of at most {routing.MAX_COLUMNS} experts, got "
      f"scores {jnp.dtype(dtype).name}{scores_shape}"
    )
  if count > routing.MAX_COUNT:
    return f"it finds at most {routing.MAX_COUNT}, got count={count}"
  return None


def supports_block_ranks(
  ids_shape: tuple[int, ...], num_groups: int
) -> str | None:
  """Returns why `block_ranks` cannot run, or None."""
  if ids_shape[0] < _FEW_TOKENS:
    return f"few tokens are as fast in XLA, got expert_ids {ids_shape}"
  if num_groups > routing.MAX_COLUMNS or ids_shape[1] > routing.MAX_COUNT:
    return (
      f"it counts at most {routing.MAX_COUNT} pairs a token of at most "
      f"{routing.MAX_COLUMNS} groups, got expert_ids {ids_shape}, "
      f"num_groups={num_groups}"
    )
  if ids_shape[0] > _MOST_TOKENS:
    return f"it counts at most {_MOST_TOKENS} tokens, got {ids_shape[0]}"
  return None


def supports_grouped_matmul(
  lhs_shape: tuple[int, ...], rhs_shape: tuple[int, ...], dtype: jnp.dtype
) -> str | None:
  """Returns why `grouped_matmul` cannot run, or None."""
  if 0 in (*lhs_shape, *rhs_shape):
    return f"it needs rows and columns, got lhs {lhs_shape}, rhs {rhs_shape}"
  if rhs_shape[1] % grouped.TILE_K or rhs_shape[2] % grouped.COLUMNS:
    return f"widths must be multiples of {grouped.COLUMNS}, got rhs {rhs_shape}"
  return _why_not_dtype(dtype)


def supports_grouped_gated_matmul(
  lhs_shape: tuple[int, ...],
  w_in_shape: tuple[int, ...],
  dtype: jnp.dtype,
  activation: str,
  is_gated: bool,
) -> str | None:
  """Returns why `grouped_gated_matmul` cannot run, or None."""
  del is_gated
  if activation not in _ACTIVATIONS:
    return f"it has no activation={activation!r}"
  return supports_grouped_matmul(lhs_shape, w_in_shape, dtype)


def supports_dispatch(
  x_shape: tuple[int, ...], place_shape: tuple[int, ...], dtype: jnp.dtype
) -> str | None:
  """Returns why `dispatch` cannot run, or None."""
  if 0 in (*x_shape, *place_shape):
    return f"it needs tokens and places, got x {x_shape}, place {place_shape}"
  if x_shape[1] % 64 or x_shape[1] > rows.MAX_WIDTH:
    return (
      f"the width must be a multiple of 64 of at most {rows.MAX_WIDTH}, got "
      f"x {x_shape}"
    )
  return _why_not_dtype(dtype)


def supports_weighted_sum(
  experts_shape: tuple[int, ...],
  weights_shape: tuple[int, ...],
  dtype: jnp.dtype,
) -> str | None:
  """Returns why `weighted_sum` cannot run, or None."""
  if weights_shape[0] < 2:
    return "one result is one fused pass in XLA already"
  if experts_shape[0] > merges.MAX_EXPERTS:
    return (
      f"it holds the weights of at most {merges.MAX_EXPERTS} experts, got "
      f"experts {experts_shape}"
    )
  size = math.prod(experts_shape[1:])
  if size < 1 or size % merges.TILE:
    return (
      f"an expert's size must be a multiple of {merges.TILE}, got experts "
      f"{experts_shape}"
    )
  return _why_not_dtype(dtype)


def _why_not_dtype(dtype: jnp.dtype) -> str | None:
  if dtype not in _DTYPES:
    return f"it needs bfloat16 or float16, got {jnp.dtype(dtype).name}"
  return None


def _config(
  lhs_shape: tuple[int, ...], rhs_shape: tuple[int, ...], *, num_matrices: int
) -> grouped.Config:
  """The measured table: few rows a group want small tiles, many large ones."""
  num_rows, (num_groups, _, num_columns) = lhs_shape[0], rhs_shape
  widths = [n for n in (256, 128, 64) if num_columns % n == 0]
  widths = [n for n in widths if n * num_matrices <= 256]
  if num_rows > 48 * num_groups:
    return grouped.Config(128, widths[0], 4, 8 if num_matrices == 2 else 4)
  tile_m = 16 if num_rows <= 8 * num_groups else 64
  # Few groups have rows: about one tile at least for every multiprocessor.
  most_groups = min(num_rows, num_groups)
  tile_n = next(
    (n for n in widths if most_groups * num_columns >= 0.9 * n * num_blocks()),
    widths[-1],
  )
  # What fits into shared memory: all of it is on its way from memory.
  stages = {256: 4, 128: 8, 64: 12}[tile_n * num_matrices]
  return grouped.Config(tile_m, tile_n, stages, 8)


def _run(lhs, matrices, group_sizes, epilogue, config) -> jax.Array:
  num_rows = lhs.shape[0]
  # A swizzled load takes eight rows at a time.
  padding = -num_rows % tiles.ALIGNMENT
  if padding:
    lhs = jnp.pad(lhs, ((0, padding), (0, 0)))
  out = grouped.run(
    lhs,
    matrices,
    group_sizes,
    epilogue=epilogue,
    config=config,
    num_blocks=num_blocks(),
  )
  return out[:num_rows]
