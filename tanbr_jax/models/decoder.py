"""The decoder of Mixtral, OLMoE, Qwen3, GPT-OSS and their kin at true sizes.

Norms, rotary grouped-query attention, experts or one merged block. What differs
between families is in the config; a layer may have one block from the start.
Every layer's parameters are arrays of their own and the layers are unrolled: a
loop over one stack would copy each layer's experts before every kernel that is
not XLA's own, which costs as much as the layer itself when few tokens are
decoded.

Letters: B batch, S sequence, C cached positions, D model width, E experts, F an
expert's hidden width, L layers with experts, V here the vocabulary.
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding

from tanbr_jax import moe
from tanbr_jax.models.base import (
  Observe,
  Params,
  Reroute,
  check_attention_mask,
)
from tanbr_jax.models.decoder_attention import LayerCache
from tanbr_jax.models.decoder_config import DecoderConfig
from tanbr_jax.models.decoder_init import init_layer, init_table
from tanbr_jax.models.decoder_layer import choose, run_layer, scaled
from tanbr_jax.models.decoder_norm import init_norm, norm
from tanbr_jax.moe import seam


class Cache(NamedTuple):
  """Keys and values of the tokens so far; donate it to `decode_step`.

  Attributes:
    layers: a cache of C positions for each layer.
    length: [] int32, how many positions are written.
    mask: [B, C] bool, which of them are no padding; None if none can be.
  """

  layers: tuple[LayerCache, ...]
  length: jax.Array
  mask: jax.Array | None = None


@dataclasses.dataclass(frozen=True)
class Decoder:
  """A `models.Generator`: a language model as functions of its parameters.

  Its experts are routed, or merged if the parameters are those of the dense
  form: `models.merge(model, params, weights)` returns that form and its
  parameters. `reroute` and `observe` are described in `moe.seam`.

  Attributes:
    config: its shape; `num_experts=None` makes the dense form.
    implementation: of the experts' kernels, None for the best on the device.
    sharding: how the first axis of the experts is spread over devices, which
      then run their own experts; None for parameters on one device.
    origin: the checkpoint that the model was read from, which `save_pretrained`
      follows; two models that differ in it alone are equal.
  """

  config: DecoderConfig
  implementation: str | None = None
  sharding: NamedSharding | None = None
  origin: Any = dataclasses.field(default=None, compare=False, repr=False)

  def __post_init__(self) -> None:
    """Refuses experts that cannot be spread so.

    Raises:
      ValueError: if the devices do not divide the number of experts, or the
        sharding spreads another axis than the first.
    """
    if self.sharding is None or self.config.num_experts is None:
      return
    names = self.sharding.spec
    if len(names) != 1 or not isinstance(names[0], str):
      raise ValueError(
        "sharding must spread the first axis over one axis of its mesh, got "
        f"{names}"
      )
    devices = self.sharding.mesh.shape[names[0]]
    if self.config.num_experts % devices:
      raise ValueError(
        "the devices must divide num_experts, got "
        f"num_experts={self.config.num_experts}, devices={devices}"
      )

  def init(self, key: jax.Array) -> Params:
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
      **init_norm("final_norm", config),
    }
    if not config.tied:
      params["head"] = init_table(keys[1], table, config.dtype)
    if config.has_head_bias:
      params["head_bias"] = jnp.zeros(config.vocab_size, config.dtype)
    for layer in range(config.num_layers):
      params[f"layer_{layer}"] = init_layer(
        keys[layer + 2], config, is_dense=layer in config.dense_layers
      )
    return {"params": params}

  def apply(
    self,
    params: Params,
    input_ids: jax.Array,
    *,
    attention_mask: jax.Array | None = None,
    reroute: Reroute | None = None,
    observe: Observe | None = None,
  ) -> Any:
    """Returns the next token's logits at every position, see `models.Model`.

    Args:
      params: of `init`, or of `models.merge`.
      input_ids: [B, S] integer tokens.
      attention_mask: [B, S], False or 0 for padding; None for none.
      reroute: chooses experts in the routers' place; None for the routers.
      observe: looks at every layer of experts; None for nothing.

    Returns:
      [B, S, V] float32; with `observe`, a pair of them and of what it saw.

    Raises:
      ValueError: if a shape is wrong, or a dense model is given a `reroute`.
    """
    longest = self.config.context
    mask = check_attention_mask(attention_mask, input_ids, longest)
    x, _, seen = self._run(params, input_ids, None, mask, reroute, observe)
    logits = self._logits(params, x)
    return logits if observe is None else (logits, seen)

  def prefill(
    self,
    params: Params,
    input_ids: jax.Array,
    *,
    capacity: int,
    attention_mask: jax.Array | None = None,
    reroute: Reroute | None = None,
    observe: Observe | None = None,
  ) -> Any:
    """Reads a batch of prompts.

    Args:
      params: of `init`, or of `models.merge`.
      input_ids: [B, S] integer tokens.
      capacity: C, room for the prompts and all tokens to come.
      attention_mask: [B, S], False or 0 for the padding of shorter prompts, on
        the left or on the right; None for none.
      reroute: as for `apply`.
      observe: as for `apply`.

    Returns:
      The logits after each prompt's last token, [B, V] float32, and the cache;
      with `observe`, what it saw as a third.

    Raises:
      ValueError: as `apply`, or if the prompts are longer than the capacity.
    """
    longest = self.config.context
    mask = check_attention_mask(attention_mask, input_ids, longest)
    batch_size, length = input_ids.shape
    if length > capacity or (longest is not None and capacity > longest):
      raise ValueError(
        "capacity must hold the prompt and be at most the context, got "
        f"capacity={capacity}, length={length}, context={longest}"
      )
    cache = self.init_cache(batch_size, capacity)
    if mask is not None:
      room = ((0, 0), (0, capacity - length))
      cache = cache._replace(mask=jnp.pad(mask, room))
    x, cache, seen = self._run(params, input_ids, cache, mask, reroute, observe)
    last = x[:, -1]
    if mask is not None:
      from_end = jnp.argmax(mask[:, ::-1], axis=1).astype(jnp.int32)
      last = x[jnp.arange(batch_size, dtype=jnp.int32), length - 1 - from_end]
    logits = self._logits(params, last)
    return (logits, cache) if observe is None else (logits, cache, seen)

  def decode_step(
    self,
    params: Params,
    cache: Cache,
    token_ids: jax.Array,
    *,
    attention_mask: jax.Array | None = None,
    reroute: Reroute | None = None,
    observe: Observe | None = None,
  ) -> Any:
    """Reads one more token of each sequence.

    Args:
      params: of `init`, or of `models.merge`.
      cache: of `prefill`, `init_cache` or the step before.
      token_ids: [B] integer tokens.
      attention_mask: [B], False or 0 for sequences that have ended, in this
        step and all later ones: no expert is run for them and their logits
        mean nothing. None for none.
      reroute: as for `apply`.
      observe: as for `apply`.

    Returns:
      The logits after that token, [B, V] float32, and the cache; with
      `observe`, what it saw as a third. Logits past the cache's capacity are
      NaN.

    Raises:
      ValueError: as `apply`.
    """
    token_ids = token_ids[:, None]
    mask = attention_mask
    if mask is not None:
      mask = check_attention_mask(mask[:, None], token_ids, None)
    has_room = cache.length < cache.layers[0].keys.shape[2]
    if cache.mask is not None:
      column = jnp.arange(cache.mask.shape[1], dtype=jnp.int32)
      is_new = (column == cache.length)[None]
      if mask is not None:
        is_new = is_new & mask
      cache = cache._replace(mask=cache.mask | is_new)
    x, cache, seen = self._run(params, token_ids, cache, mask, reroute, observe)
    logits = self._logits(params, x[:, 0])
    logits = jnp.where(has_room, logits, jnp.float32(jnp.nan))
    return (logits, cache) if observe is None else (logits, cache, seen)

  def choose(self, router: Params, router_logits: jax.Array) -> moe.Routing:
    """Returns the choice of a layer's router, see `models.Model`."""
    return choose(router, router_logits, self.config)

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
    params: Params,
    input_ids: jax.Array,
    cache: Cache | None,
    token_mask: jax.Array | None,
    reroute: Reroute | None,
    observe: Observe | None,
  ) -> tuple[jax.Array, Cache, Any]:
    """The normalised outputs of the last layer, the cache, and what was seen.

    Args:
      params: of this model.
      input_ids: [B, S].
      cache: of the tokens before, its mask told of these S; None without.
      token_mask: [B, S] bool, False for padding; None for none.
      reroute: of all layers.
      observe: of all layers.
    """
    config = self.config
    moe_layers = config.moe_layers
    seam.check_seam(
      len(moe_layers), config.num_experts, reroute=reroute, observe=observe
    )
    tree = params["params"]
    # A cache says where these tokens begin, and which keys are padding.
    start = jnp.zeros((), jnp.int32) if cache is None else cache.length
    key_mask = token_mask if cache is None else cache.mask
    x = scaled(tree["embedding"][input_ids], config.embedding_scale)
    # Each layer gets its own part of the cache and of both functions.
    layers, seen = [], []
    for index in range(config.num_layers):
      has_experts = index in moe_layers
      place = moe_layers.index(index) if has_experts else None
      x, layer_cache, seen_here = run_layer(
        tree[f"layer_{index}"],
        x,
        start,
        None if cache is None else cache.layers[index],
        key_mask,
        token_mask,
        seam.of_layer(reroute, place) if has_experts else None,
        seam.of_layer(observe, place) if has_experts else None,
        config=config,
        implementation=self.implementation,
        sharding=self.sharding,
        window=config.attention.window_of(index),
      )
      layers.append(layer_cache)
      if has_experts:
        seen.append(seen_here)
    # The new cache holds these tokens too.
    x = norm(tree, "final_norm", x, config)
    cache = Cache(tuple(layers), start + input_ids.shape[1], key_mask)
    return x, cache, seam.stack_layers(seen)

  def _logits(self, params: Params, x: jax.Array) -> jax.Array:
    """[..., V] float32, without a float32 copy of the table."""
    tree = params["params"]
    table = tree["embedding"] if self.config.tied else tree["head"]
    logits = jnp.einsum(
      "...d,vd->...v", x, table, preferred_element_type=jnp.float32
    )
    if self.config.has_head_bias:
      bias = tree["head_bias"].astype(jnp.float32)
      logits = logits + bias.reshape((1,) * (logits.ndim - 1) + (-1,))
    return scaled(logits, self.config.logit_scale)
