"""Causal attention with rotary positions and fewer key heads than queries.

Letters: B batch, S sequence, C cached positions, D model width, H query heads,
G key and value heads, W a head's width.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from tanbr_jax.models import decoder_rotary
from tanbr_jax.models.decoder_config import DecoderConfig
from tanbr_jax.models.decoder_norm import rms_norm


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
    says so, their biases, the scales `query_norm` and `key_norm`, and `sinks`.
  """
  heads, kv_heads, width = _heads(config)
  options, dtype = config.attention, config.dtype
  in_key, out_key = jax.random.split(key)
  in_width = (heads + 2 * kv_heads) * width
  params = {
    "query_key_value": draw(in_key, (config.model_dim, in_width), dtype),
    "output": draw(out_key, (heads * width, config.model_dim), dtype),
  }
  if options.has_bias:
    params["query_key_value_bias"] = jnp.zeros(in_width, dtype)
  if options.has_output_bias:
    params["output_bias"] = jnp.zeros(config.model_dim, dtype)
  if options.has_sinks:
    params["sinks"] = jnp.zeros(heads, dtype)
  if options.query_key_norm is not None:
    for name, count in (("query_norm", heads), ("key_norm", kv_heads)):
      size = width if options.query_key_norm == "head" else count * width
      params[name] = jnp.ones(size, dtype)
  return params


def attention(
  params: dict[str, Any],
  x: jax.Array,
  *,
  start: jax.Array,
  cache: LayerCache | None,
  config: DecoderConfig,
  mask: jax.Array | None = None,
  window: int | None = None,
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
    window: how many positions one sees, itself included; None for all.

  Returns:
    [B, S, D], and the cache with the new keys and values (without a cache,
    these alone).
  """
  query, key, value = _project(params, x, config)
  positions = _positions(mask, start, x.shape[1])
  cos, sin = decoder_rotary.turns(positions, config.head_dim, config.rotary)
  query, key = (
    decoder_rotary.rotate(
      each, cos, sin, is_interleaved=config.rotary.is_interleaved
    )
    for each in (query, key)
  )
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
  scale = config.attention.scale or config.head_dim**-0.5
  is_seen = _is_seen(cache.keys.shape[2], x.shape[1], start, mask, window)
  out = _attend(query, cache, is_seen, scale, params.get("sinks"))
  out = out.reshape(*x.shape[:2], config.num_heads * config.head_dim)
  out = out @ params["output"]
  return _add_bias(out, params.get("output_bias")), cache


def _positions(
  mask: jax.Array | None, start: jax.Array, length: int
) -> jax.Array:
  """[1 or B, S] int32, counted from each sequence's first real token."""
  if mask is None:
    return (jnp.arange(length, dtype=jnp.int32) + start)[None]
  rows = lax.dynamic_slice_in_dim(_places(mask), start, length, axis=1)
  return jnp.maximum(rows, 0)


def _places(mask: jax.Array) -> jax.Array:
  """[B, C] int32: the position of each real token in the cache."""
  return jnp.cumsum(mask, axis=1, dtype=jnp.int32) - 1


def _is_seen(
  positions: int,
  length: int,
  start: jax.Array,
  mask: jax.Array | None,
  window: int | None,
) -> jax.Array:
  """[1 or B, 1, 1, S, C] bool: which cached positions each token sees."""
  row = jnp.arange(length, dtype=jnp.int32) + start
  column = jnp.arange(positions, dtype=jnp.int32)
  is_seen = (column[None, :] <= row[:, None])[None]
  if window is not None:
    # Counted in tokens: padding on the right lies between prompt and answer.
    places = column[None] if mask is None else _places(mask)
    rows = lax.dynamic_slice_in_dim(places, start, length, axis=1)
    is_seen = is_seen & (places[:, None, :] > rows[:, :, None] - window)
  if mask is not None:
    # Padding sees itself, as a softmax over nothing would be NaN.
    is_self = (column[None, :] == row[:, None])[None]
    is_seen = (is_seen & mask[:, None, :]) | is_self
  return is_seen[:, None, None]


def _attend(
  query: jax.Array,
  cache: LayerCache,
  is_seen: jax.Array,
  scale: float,
  sinks: jax.Array | None,
) -> jax.Array:
  """[B, S, H, W] of queries [B, S, H, W]; softmax in float32."""
  batch, length, heads, width = query.shape
  groups = cache.keys.shape[1]
  query = query.reshape(batch, length, groups, heads // groups, width)
  scores = jnp.einsum(
    "bsgrw,bgcw->bgrsc",
    query,
    cache.keys,
    preferred_element_type=jnp.float32,
  )
  scores = jnp.where(is_seen, scores * scale, -jnp.inf)
  if sinks is None:
    shares = jax.nn.softmax(scores, axis=-1)
  else:
    # A sink is one more column of the softmax, which is then left out.
    sink = sinks.astype(jnp.float32).reshape(1, groups, heads // groups, 1, 1)
    total = jax.nn.logsumexp(scores, axis=-1, keepdims=True)
    shares = jnp.exp(scores - jnp.logaddexp(total, sink))
  shares = shares.astype(query.dtype)
  out = jnp.einsum("bgrsc,bgcw->bsgrw", shares, cache.values)
  return out.reshape(batch, length, heads, width)


def _project(
  params: dict[str, Any], x: jax.Array, config: DecoderConfig
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Queries [B, S, H, W], keys and values [B, S, G, W]."""
  heads, kv_heads, width = _heads(config)
  norm, clip = config.attention.query_key_norm, config.attention.clip
  projected = x @ params["query_key_value"]
  query, key, value = jnp.split(
    _add_bias(projected, params.get("query_key_value_bias")),
    (heads * width, (heads + kv_heads) * width),
    axis=-1,
  )
  if norm == "projection":
    query = rms_norm(query, params["query_norm"], config.norm_eps)
    key = rms_norm(key, params["key_norm"], config.norm_eps)
  query = query.reshape(*x.shape[:2], heads, width)
  key = key.reshape(*x.shape[:2], kv_heads, width)
  if norm == "head":
    query = rms_norm(query, params["query_norm"], config.norm_eps)
    key = rms_norm(key, params["key_norm"], config.norm_eps)
  value = value.reshape(key.shape)
  if clip is not None:
    query, key, value = (
      jnp.clip(each, -clip, clip) for each in (query, key, value)
    )
  return query, key, value


def _add_bias(x: jax.Array, bias: jax.Array | None) -> jax.Array:
  return x if bias is None else x + bias[None, None]


def _heads(config: DecoderConfig) -> tuple[int, int, int]:
  return config.num_heads, config.num_kv_heads, config.head_dim


def draw(key: jax.Array, shape: tuple[int, ...], dtype: str) -> jax.Array:
  """A normal matrix [fan in, ...] that keeps its input's variance."""
  sample = jax.random.normal(key, shape, jnp.float32) * shape[0] ** -0.5
  return sample.astype(dtype)
