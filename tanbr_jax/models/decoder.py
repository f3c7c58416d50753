"""A decoder of the Mixtral, OLMoE and Qwen3 family at true sizes.

Pre-RMSNorm, rotary grouped-query attention, experts or one merged block.
Every layer's parameters are arrays of their own and the layers are unrolled: a
loop over one stack would copy each layer's experts before every kernel that is
not XLA's own, which costs as much as the layer itself when few tokens are
decoded.

Letters: B batch, S sequence, C cached positions, D model width, E experts, F an
expert's hidden width, L layers, V here the vocabulary.
"""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from tanbr_jax import moe
from tanbr_jax.models.decoder_attention import (
  LayerCache,
  attention,
  rms_norm,
)
from tanbr_jax.models.decoder_config import DecoderConfig
from tanbr_jax.models.decoder_init import init_layer, init_table


class Cache(NamedTuple):
  """What decoding keeps of the tokens so far; donate it to `decode_step`.

  Attributes:
    layers: L caches of C positions.
    length: [] int32, how many positions are written.
  """

  layers: tuple[LayerCache, ...]
  length: jax.Array


@dataclasses.dataclass(frozen=True)
class Decoder:
  """A language model as pure functions of its parameters.

  Its experts are routed, or masked where a mask is given, or merged if the
  parameters are those of the dense form: `models.merge(model, params, weights)`
  returns that form and its parameters. A mask is boolean, [L, E] for all tokens
  or [L, B, S, E]; a token's choice of a masked expert is skipped and the gates
  of the others stay as they are.

  Attributes:
    config: its shape; `num_experts=None` makes the dense form.
    implementation: of the experts' kernels, None for the best on the device.
  """

  config: DecoderConfig
  implementation: str | None = None

  def init(self, key: jax.Array) -> dict[str, Any]:
    """Draws parameters, layer by layer and expert by expert on the device.

    Args:
      key: random key, consumed.

    Returns:
      The tree `{"params": {"embedding", "layer_0", ..., "final_norm"}}`, with
      "head" if it is not tied; all of the config's type but float32 routers.
    """
    config = self.config
    keys = jax.random.split(key, config.num_layers + 2)
    table = (config.vocab_size, config.model_dim)
    params = {
      "embedding": init_table(keys[0], table, config.dtype),
      "final_norm": jnp.ones(config.model_dim, config.dtype),
    }
    if not config.tied:
      params["head"] = init_table(keys[1], table, config.dtype)
    for layer in range(config.num_layers):
      params[f"layer_{layer}"] = init_layer(keys[layer + 2], config)
    return {"params": params}

  def apply(
    self,
    params: dict[str, Any],
    input_ids: jax.Array,
    *,
    mask: jax.Array | None = None,
  ) -> jax.Array:
    """Returns the next token's logits at every position.

    Args:
      params: of `init`, or of `models.merge`.
      input_ids: [B, S] int32 tokens.
      mask: which experts may be used, None for all.

    Returns:
      [B, S, V] float32.

    Raises:
      ValueError: if a shape is wrong, or a dense model is given a mask.
    """
    x, _ = self._run(params, input_ids, None, mask)
    return self._logits(params, x)

  def prefill(
    self,
    params: dict[str, Any],
    input_ids: jax.Array,
    *,
    capacity: int,
    mask: jax.Array | None = None,
  ) -> tuple[jax.Array, Cache]:
    """Reads a batch of prompts of one length.

    Args:
      params: of `init`, or of `models.merge`.
      input_ids: [B, S] int32 tokens.
      capacity: C, room for the prompt and all tokens to come.
      mask: which experts may be used, None for all.

    Returns:
      The logits after the last token, [B, V] float32, and the cache.

    Raises:
      ValueError: as `apply`, or if the prompt is longer than the capacity.
    """
    cache = self.init_cache(input_ids.shape[0], capacity)
    if input_ids.shape[1] > capacity:
      raise ValueError(
        "capacity must hold the prompt, got "
        f"capacity={capacity}, length={input_ids.shape[1]}"
      )
    x, cache = self._run(params, input_ids, cache, mask)
    return self._logits(params, x[:, -1]), cache

  def decode_step(
    self,
    params: dict[str, Any],
    cache: Cache,
    token_ids: jax.Array,
    *,
    mask: jax.Array | None = None,
  ) -> tuple[jax.Array, Cache]:
    """Reads one more token of each sequence.

    Args:
      params: of `init`, or of `models.merge`.
      cache: of `prefill`, `init_cache` or the step before.
      token_ids: [B] int32.
      mask: which experts may be used, None for all.

    Returns:
      The logits after that token, [B, V] float32, and the cache. Logits past
      the cache's capacity are NaN.

    Raises:
      ValueError: as `apply`.
    """
    has_room = cache.length < cache.layers[0].keys.shape[2]
    x, cache = self._run(params, token_ids[:, None], cache, mask)
    logits = self._logits(params, x[:, 0])
    return jnp.where(has_room, logits, jnp.float32(jnp.nan)), cache

  def init_cache(self, batch_size: int, capacity: int) -> Cache:
    """Returns an empty cache of B sequences and C positions."""
    config = self.config
    shape = (batch_size, config.num_kv_heads, capacity, config.head_dim)
    layers = tuple(
      LayerCache(jnp.zeros(shape, config.dtype), jnp.zeros(shape, config.dtype))
      for _ in range(config.num_layers)
    )
    return Cache(layers, jnp.zeros((), jnp.int32))

  def _run(
    self,
    params: dict[str, Any],
    input_ids: jax.Array,
    cache: Cache | None,
    mask: jax.Array | None,
  ) -> tuple[jax.Array, Cache]:
    """The normalised outputs of the last layer, [B, S, D], and the cache."""
    if input_ids.ndim != 2:
      raise ValueError(f"input_ids must be [B, S], got {input_ids.shape}")
    if mask is not None:
      self._check_mask(mask, input_ids.shape)
    tree = params["params"]
    start = jnp.zeros((), jnp.int32) if cache is None else cache.length
    x = tree["embedding"][input_ids]
    layers = []
    for index in range(self.config.num_layers):
      x, layer_cache = _run_layer(
        tree[f"layer_{index}"],
        x,
        start,
        None if cache is None else cache.layers[index],
        None if mask is None else mask[index],
        model=self,
      )
      layers.append(layer_cache)
    x = rms_norm(x, tree["final_norm"], self.config)
    return x, Cache(tuple(layers), start + input_ids.shape[1])

  def _logits(self, params: dict[str, Any], x: jax.Array) -> jax.Array:
    """[..., V] float32, without a float32 copy of the table."""
    tree = params["params"]
    table = tree["embedding"] if self.config.tied else tree["head"]
    return jnp.einsum(
      "...d,vd->...v", x, table, preferred_element_type=jnp.float32
    )

  def _check_mask(self, mask: jax.Array, shape: tuple[int, ...]) -> None:
    config = self.config
    if config.num_experts is None:
      raise ValueError("a dense model takes no mask, got num_experts=None")
    ends = (config.num_layers, config.num_experts)
    if mask.dtype != bool or mask.shape not in (
      ends,
      (ends[0], *shape, ends[1]),
    ):
      raise ValueError(
        "mask must be boolean [L, E] or [L, B, S, E], got "
        f"{mask.dtype}{mask.shape} for L={ends[0]}, E={ends[1]}, B, S={shape}"
      )


# Compiled as a function of its own, it is traced once for all layers.
@functools.partial(jax.jit, static_argnames="model")
def _run_layer(
  params: dict[str, Any],
  x: jax.Array,
  start: jax.Array,
  cache: LayerCache | None,
  mask: jax.Array | None,
  *,
  model: Decoder,
) -> tuple[jax.Array, LayerCache]:
  """[B, S, D] through attention and experts; the layer's cache."""
  config = model.config
  out, cache = attention(
    params["attention"],
    rms_norm(x, params["attention_norm"], config),
    start=start,
    cache=cache,
    config=config,
  )
  x = x + out
  hidden = rms_norm(x, params["ffn_norm"], config)
  return x + _run_experts(params["experts"], hidden, mask, model), cache


def _run_experts(
  params: dict[str, Any],
  x: jax.Array,
  mask: jax.Array | None,
  model: Decoder,
) -> jax.Array:
  config = model.config
  if config.num_experts is None:
    return moe.apply(params["stack"], x)
  tokens = x.reshape(-1, config.model_dim)
  router_logits = tokens.astype(jnp.float32) @ params["router"]["kernel"]
  routing = moe.top_k(
    router_logits, config.num_selected, renormalise=config.renormalise
  )
  if mask is not None and mask.ndim > 1:
    mask = mask.reshape(-1, config.num_experts)
  out = moe.masked(
    params["stack"], tokens, routing, mask, implementation=model.implementation
  )
  return out.reshape(x.shape)
