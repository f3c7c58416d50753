"""Random parameters of a decoder, layer by layer and expert by expert.

Letters: D model width, E experts, V here the vocabulary.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from tanbr_jax import moe
from tanbr_jax.models.decoder_attention import draw, init_attention
from tanbr_jax.models.decoder_config import DecoderConfig


@functools.partial(jax.jit, static_argnames=("shape", "dtype"))
def init_table(key: jax.Array, shape: tuple[int, int], dtype: str) -> jax.Array:
  """Draws an embedding or an output head.

  Args:
    key: random key, consumed.
    shape: [V, D].
    dtype: of the result.

  Returns:
    [V, D], such that logits of normalised outputs have unit variance.
  """
  return (jax.random.normal(key, shape, jnp.float32) * shape[1] ** -0.5).astype(
    dtype
  )


@functools.partial(jax.jit, static_argnames="config")
def init_layer(key: jax.Array, config: DecoderConfig) -> dict[str, Any]:
  """Draws one layer; one program serves all layers.

  Args:
    key: random key, consumed.
    config: the model's shape.

  Returns:
    Attention, its norms, and the experts with their float32 router.
  """
  attention_key, router_key, stack_key = jax.random.split(key, 3)
  experts = {"stack": _init_stack(stack_key, config)}
  if config.num_experts is not None:
    shape = (config.model_dim, config.num_experts)
    experts["router"] = {"kernel": draw(router_key, shape, "float32")}
  return {
    "attention_norm": jnp.ones(config.model_dim, config.dtype),
    "attention": init_attention(attention_key, config),
    "ffn_norm": jnp.ones(config.model_dim, config.dtype),
    "experts": experts,
  }


def _init_stack(
  key: jax.Array, config: DecoderConfig
) -> moe.Experts | moe.FeedForward:
  """The experts of one layer, or the one block of the dense form."""
  stack_key, shared_key = jax.random.split(key)

  def draw_one(key: jax.Array) -> moe.FeedForward:
    return _init_block(key, config.expert_dim, config)

  if config.num_experts is None:
    stack = draw_one(stack_key)
  else:
    # One after the other: only one expert exists in float32 at a time.
    keys = jax.random.split(stack_key, config.num_experts)
    stack = moe.Experts(**vars(lax.map(draw_one, keys)))
  if config.shared_dim is None:
    return stack
  shared = _init_block(shared_key, config.shared_dim, config)
  return dataclasses.replace(stack, shared=shared)


def _init_block(
  key: jax.Array, hidden_dim: int, config: DecoderConfig
) -> moe.FeedForward:
  one = moe.init_experts(
    key,
    1,
    model_dim=config.model_dim,
    expert_dim=hidden_dim,
    activation=config.activation,
    is_gated=config.is_gated,
  )
  one = jax.tree.map(lambda leaf: leaf[0].astype(config.dtype), one)
  return moe.FeedForward(**vars(one))
