"""Causal attention with rotary positions and fewer key heads than queries.

Letters: B batch, S sequence, C cached positions, D model width, H query heads,
G key and value heads, W a head's width.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from tanbr_jax.models.decoder_config import DecoderConfig


class LayerCache(NamedTuple):
  """Keys and values of one layer; a position that is not yet written is junk.

  Each head's positions are neighbours: a batch of matrices as products read
  them, where another order of axes has the whole cache copied in every step.

  Attributes:
    keys: [B, G, C, W], rotated.
    values: [B, G, C, W].
  """

  keys: jax.Array
  values: jax.Array


def init_attention(key: jax.Array, config: DecoderConfig) -> dict[str, Any]:
  """Draws the parameters of one layer's attention.

  Args:
    key: random key, consumed.
    config: the model's shape.

  Returns:
    `query_key_value` [D, (H + 2 G) W], `output` [H W, D] and, if the config
    says so, the scales `query_norm` and `key_norm`.
  """
  heads, kv_heads, width = _heads(config)
  in_key, out_key = jax.random.split(key)
  params = {
    "query_key_value": draw(
      in_key, (config.model_dim, (heads + 2 * kv_heads) * width), config.dtype
    ),
    "output": draw(out_key, (heads * width, config.model_dim), config.dtype),
  }
  if config.query_key_norm is not None:
    for name, count in (("query_norm", heads), ("key_norm", kv_heads)):
      size = width if config.query_key_norm == "head" else count * width
      params[name] = jnp.ones(size, config.dtype)
  return params


def attention(
  params: dict[str, Any],
  x: jax.Array,
  *,
  start: jax.Array,
  cache: LayerCache | None,
  config: DecoderConfig,
  mask: jax.Array | None = None,
) -> tuple[jax.Array, LayerCache]:
  """Attends to everything up to and including each position.

  Grouped queries: Ainslie et al., GQA (2023).

  Args:
    params: of `init_attention`.
    x: [B, S, D], normalised.
    start: [] int32, where the first of the S tokens is written.
    cache: keys and values of the positions before `start`, with room for S
      more; None if there are none.
    config: the model's shape.
    mask: [B, C] bool, False where the cache (or x, without one) holds padding,
      which is not attended to and has no position; None for no padding.

  Returns:
    [B, S, D], and the cache with the new keys and values (without a cache,
    these alone).
  """
  query, key, value = _project(params, x, config)
  angles = rotary_angles(_positions(mask, start, x.shape[1]), config)
  query, key = rotate(query, angles), rotate(key, angles)
  key, value = key.swapaxes(1, 2), value.swapaxes(1, 2)
  if cache is None:
    cache = LayerCache(key, value)
  else:
    zero = jnp.zeros((), start.dtype)
    place = (zero, zero, start, zero)
    cache = LayerCache(
      lax.dynamic_update_slice(cache.keys, key, place),
      lax.dynamic_update_slice(cache.values, value, place),
    )
  out = _attend(query, cache, start, mask)
  width = config.num_heads * config.head_dim
  return out.reshape(*x.shape[:2], width) @ params["output"], cache


def _positions(
  mask: jax.Array | None, start: jax.Array, length: int
) -> jax.Array:
  """[1 or B, S] int32, counted from each sequence's first real token."""
  if mask is None:
    return (jnp.arange(length, dtype=jnp.int32) + start)[None]
  place = jnp.cumsum(mask, axis=1, dtype=jnp.int32) - 1
  place = lax.dynamic_slice_in_dim(place, start, length, axis=1)
  return jnp.maximum(place, 0)


def _attend(
  query: jax.Array,
  cache: LayerCache,
  start: jax.Array,
  mask: jax.Array | None,
) -> jax.Array:
  """[B, S, H, W] of queries [B, S, H, W]; softmax in float32."""
  batch, length, heads, width = query.shape
  groups, positions = cache.keys.shape[1:3]
  query = query.reshape(batch, length, groups, heads // groups, width)
  scores = jnp.einsum(
    "bsgrw,bgcw->bgrsc",
    query,
    cache.keys,
    preferred_element_type=jnp.float32,
  )
  row = jnp.arange(length, dtype=jnp.int32) + start
  column = jnp.arange(positions, dtype=jnp.int32)
  is_seen = (column[None, :] <= row[:, None])[None, None, None]
  if mask is not None:
    # Padding sees itself, as a softmax over nothing would be NaN.
    is_seen = is_seen & mask[:, None, None, None, :]
    is_seen = is_seen | (column[None, :] == row[:, None])[None, None, None]
  scores = jnp.where(is_seen, scores * width**-0.5, -jnp.inf)
  shares = jax.nn.softmax(scores, axis=-1).astype(query.dtype)
  out = jnp.einsum("bgrsc,bgcw->bsgrw", shares, cache.values)
  return out.reshape(batch, length, heads, width)


def _project(
  params: dict[str, Any], x: jax.Array, config: DecoderConfig
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Queries [B, S, H, W], keys and values [B, S, G, W]."""
  heads, kv_heads, width = _heads(config)
  query, key, value = jnp.split(
    x @ params["query_key_value"],
    (heads * width, (heads + kv_heads) * width),
    axis=-1,
  )
  if config.query_key_norm == "projection":
    query = rms_norm(query, params["query_norm"], config)
    key = rms_norm(key, params["key_norm"], config)
  query = query.reshape(*x.shape[:2], heads, width)
  key = key.reshape(*x.shape[:2], kv_heads, width)
  if config.query_key_norm == "head":
    query = rms_norm(query, params["query_norm"], config)
    key = rms_norm(key, params["key_norm"], config)
  return query, key, value.reshape(key.shape)


def _heads(config: DecoderConfig) -> tuple[int, int, int]:
  return config.num_heads, config.num_kv_heads, config.head_dim


def rotary_angles(positions: jax.Array, config: DecoderConfig) -> jax.Array:
  """[..., W / 2] float32, positions [...] times theta^(-2 i / W).

  Su et al., RoFormer (2021), equation 15.
  """
  half = config.head_dim // 2
  exponent = -jnp.arange(half, dtype=jnp.float32) / half
  frequencies = config.rope_theta**exponent
  lead = (1,) * positions.ndim
  return positions.astype(jnp.float32)[..., None] * frequencies.reshape(
    *lead, half
  )


def rotate(x: jax.Array, angles: jax.Array) -> jax.Array:
  """Turns the pair (i, i + W / 2) of every head by its angle.

  Pairs are half a head apart, as in the checkpoints of these models, and not
  neighbours as in the paper: the same up to a permutation of the columns.

  Args:
    x: [B, S, heads, W].
    angles: [1 or B, S, W / 2] float32.

  Returns:
    [B, S, heads, W] of x's type.
  """
  cos = jnp.cos(angles)[:, :, None, :]
  sin = jnp.sin(angles)[:, :, None, :]
  first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
  turned = (first * cos - second * sin, second * cos + first * sin)
  return jnp.concatenate(turned, axis=-1).astype(x.dtype)


def rms_norm(
  x: jax.Array, scale: jax.Array, config: DecoderConfig
) -> jax.Array:
  """Divides by the root mean square of the last axis, computed in float32.

  Zhang and Sennrich, RMSNorm (2019), equation 4.
  """
  wide = x.astype(jnp.float32)
  mean_square = jnp.mean(jnp.square(wide), axis=-1, keepdims=True)
  wide = wide * lax.rsqrt(mean_square + config.norm_eps)
  return wide.astype(x.dtype) * scale.reshape((1,) * (x.ndim - 1) + (-1,))


def draw(key: jax.Array, shape: tuple[int, ...], dtype: str) -> jax.Array:
  """A normal matrix [fan in, ...] that keeps its input's variance."""
  sample = jax.random.normal(key, shape, jnp.float32) * shape[0] ** -0.5
  return sample.astype(dtype)
