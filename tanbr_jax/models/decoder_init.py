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
from tanbr_jax.models.decoder_norm import init_norm


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


@functools.partial(jax.jit, static_argnames=("config", "is_dense"))
def init_layer(
  key: jax.Array, config: DecoderConfig, *, is_dense: bool = False
) -> dict[str, Any]:
  """Draws one layer; one program serves all layers of a kind.

  Args:
    key: random key, consumed.
    config: the model's shape.
    is_dense: whether it is one of the config's `dense_layers`.

  Returns:
    Attention, its norms, and the experts with their float32 router.
  """
  attention_key, router_key, stack_key = jax.random.split(key, 3)
  experts = {"stack": _init_stack(stack_key, config, is_dense)}
  if config.num_experts is not None and not is_dense:
    shape = (config.model_dim, config.num_experts)
    experts["router"] = {"kernel": draw(router_key, shape, "float32")}
    for name, is_there in (
      ("bias", config.router.has_bias),
      ("correction_bias", config.router.has_correction_bias),
    ):
      if is_there:
        experts["router"][name] = jnp.zeros(config.num_experts, jnp.float32)
  return {
    **init_norm("attention_norm", config),
    "attention": init_attention(attention_key, config),
    **init_norm("ffn_norm", config),
    "experts": experts,
  }


def _init_stack(
  key: jax.Array, config: DecoderConfig, is_dense: bool
) -> moe.Experts | moe.FeedForward:
  """The experts of one layer, or one block in their place."""
  stack_key, shared_key = jax.random.split(key)
  if is_dense:
    return _init_block(
      stack_key, config.dense_dim, config, config.has_dense_bias
    )

  def draw_one(key: jax.Array) -> moe.FeedForward:
    return _init_block(key, config.expert_dim, config, config.has_expert_bias)

  if config.num_experts is None:
    stack = draw_one(stack_key)
  else:
    # One after the other: only one expert exists in float32 at a time.
    keys = jax.random.split(stack_key, config.num_experts)
    stack = moe.Experts(**vars(lax.map(draw_one, keys)))
  if config.shared_dim is None:
    return stack
  shared = _init_block(
    shared_key, config.shared_dim, config, config.has_dense_bias
  )
  gate = None
  if config.has_shared_gate:
    gate_key = jax.random.fold_in(shared_key, 0)
    gate = draw(gate_key, (config.model_dim, 1), config.dtype)
  return dataclasses.replace(stack, shared=shared, shared_gate=gate)


def _init_block(
  key: jax.Array, hidden_dim: int, config: DecoderConfig, has_biases: bool
) -> moe.FeedForward:
  one = moe.init_experts(
    key,
    1,
    model_dim=config.model_dim,
    expert_dim=hidden_dim,
    activation=config.activation,
    is_gated=config.is_gated,
    has_biases=has_biases,
  )
  one = jax.tree.map(lambda leaf: leaf[0].astype(config.dtype), one)
  return moe.FeedForward(**vars(one))
