"""One layer of a decoder: attention, and experts or one block.

Letters: B batch, S sequence, N tokens, D model width, E experts.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding

from tanbr_jax import moe
from tanbr_jax.models.base import Observe, Params, Reroute
from tanbr_jax.models.decoder_attention import LayerCache, attention
from tanbr_jax.models.decoder_config import DecoderConfig
from tanbr_jax.models.decoder_norm import norm


# Compiled as a function of its own, it is traced once for all layers of a kind.
@functools.partial(
  jax.jit, static_argnames=("config", "implementation", "sharding", "window")
)
def run_layer(
  params: Params,
  x: jax.Array,
  start: jax.Array,
  cache: LayerCache | None,
  key_mask: jax.Array | None,
  token_mask: jax.Array | None,
  reroute: Reroute | None,
  observe: Observe | None,
  *,
  config: DecoderConfig,
  implementation: str | None,
  sharding: NamedSharding | None,
  window: int | None,
) -> tuple[jax.Array, LayerCache, Any]:
  """Sends tokens through one layer.

  Args:
    params: of this layer.
    x: [B, S, D], the residual stream.
    start: [] int32, where the first of the S tokens is.
    cache: of this layer, None without.
    key_mask: of the cached positions, see `attention`.
    token_mask: [B, S] bool, False for padding; None for none.
    reroute: of this layer, None for none.
    observe: of this layer, None for none.
    config: the model's shape.
    implementation: of the experts' kernels.
    sharding: of the experts, see `Decoder`.
    window: how many positions a token sees, None for all.

  Returns:
    [B, S, D], the cache with these tokens, and what was seen.
  """
  is_before = config.norm_place == "before"
  # Attention, and the cache with the keys and values of these tokens.
  out, cache = attention(
    params["attention"],
    norm(params, "attention_norm", x, config) if is_before else x,
    start=start,
    cache=cache,
    config=config,
    mask=key_mask,
    window=window,
  )
  if not is_before:
    out = norm(params, "attention_norm", out, config)
  x = x + scaled(out, config.residual_scale)
  # The feed-forward half.
  out, seen = _run_experts(
    params["experts"],
    norm(params, "ffn_norm", x, config) if is_before else x,
    x,
    token_mask,
    reroute,
    observe,
    config,
    implementation,
    sharding,
  )
  if not is_before:
    out = norm(params, "ffn_norm", out, config)
  return x + scaled(out, config.residual_scale), cache, seen


def _run_experts(
  params: Params,
  hidden: jax.Array,
  residual: jax.Array,
  token_mask: jax.Array | None,
  reroute: Reroute | None,
  observe: Observe | None,
  config: DecoderConfig,
  implementation: str | None,
  sharding: NamedSharding | None,
) -> tuple[jax.Array, Any]:
  """The output [B, S, D] of a layer's experts, and what was seen."""
  # One block has no router, of whatever layer.
  if "router" not in params:
    return moe.apply_block(
      params["stack"], hidden, token_mask=token_mask, observe=observe
    )
  tokens = hidden.reshape(-1, config.model_dim)
  router_logits, routing = route(params["router"], tokens, config)
  # The experts, with what a method may change and look at.
  out, seen = moe.apply_layer(
    params["stack"],
    tokens,
    router_logits,
    routing,
    routes=params.get("routes"),
    constants=params.get("constants"),
    token_mask=None if token_mask is None else token_mask.reshape(-1),
    residual=residual.reshape(-1, config.model_dim),
    reroute=reroute,
    observe=observe,
    implementation=implementation,
    sharding=sharding,
  )
  return out.reshape(hidden.shape), seen


def route(
  router: Params, tokens: jax.Array, config: DecoderConfig
) -> tuple[jax.Array, moe.Routing]:
  """Returns a router's logits [N, E] float32 and its choice.

  Args:
    router: a layer's router: `kernel` [D, E] and, if the config says so,
      `bias` [E] and `correction_bias` [E], all float32.
    tokens: [N, D], what the experts see.
    config: the model's shape.
  """
  options = config.router
  logits = tokens.astype(jnp.float32) @ router["kernel"]
  if options.has_bias:
    logits = logits + router["bias"][None]
  return logits, choose(router, logits, config)


def choose(
  router: Params, router_logits: jax.Array, config: DecoderConfig
) -> moe.Routing:
  """Returns a router's choice by its logits.

  Args:
    router: a layer's router, of which only `correction_bias` [E] is read.
    router_logits: [N, E] float32; -inf closes an expert to a token.
    config: the model's shape.
  """
  options = config.router
  if options.scores == "sparsemixer":
    return moe.sparsemixer(router_logits, tolerance=options.tolerance)
  return moe.top_k(
    router_logits,
    config.num_selected,
    scores=options.scores,
    renormalise=options.renormalise,
    correction_bias=router.get("correction_bias"),
    groups=options.groups,
    gate_scale=options.gate_scale,
  )


def scaled(x: jax.Array, scale: float) -> jax.Array:
  """Returns x times a number, in its type."""
  return x if scale == 1.0 else x * jnp.asarray(scale, x.dtype)
