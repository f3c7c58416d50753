"""A small byte-level decoder whose FFNs are experts, or one merged block.

Pre-RMSNorm, causal attention, squared-ReLU experts. A position also sees the
embeddings of its two previous bytes, which makes small models learn far faster.

Letters: B batch, S sequence, D model width, E experts, L layers.
"""

import contextlib
import dataclasses
from typing import TypeVar

import jax
import jax.numpy as jnp
from flax import linen as nn

from tanbr_jax import moe

T = TypeVar("T", moe.Experts, moe.FeedForward)
NUM_BYTES = 256
NUM_PREVIOUS = 2


@dataclasses.dataclass(frozen=True)
class ByteLMConfig:
  """The shape of a `ByteLM`.

  Attributes:
    num_layers: L.
    model_dim: D.
    num_heads: attention heads.
    head_dim: width of one head.
    expert_dim: F, hidden width of one expert.
    num_experts: E, or None for the dense model that merging makes.
    num_selected: K, experts per token of the routed forward.
    context: the longest sequence.
    dtype: type of the computation; parameters are float32.
  """

  num_layers: int = 3
  model_dim: int = 128
  num_heads: int = 2
  head_dim: int = 64
  expert_dim: int = 512
  num_experts: int | None = 8
  num_selected: int = 2
  context: int = 64
  dtype: str = "float32"

  def __post_init__(self) -> None:
    """Refuses sizes that cannot be.

    Raises:
      ValueError: if a size is below 1, or K is not in [1, E].
    """
    for field in dataclasses.fields(self):
      value = getattr(self, field.name)
      if isinstance(value, int) and value < 1:
        raise ValueError(
          f"{field.name} must be at least 1, got {field.name}={value}"
        )
    if self.num_experts is not None and self.num_selected > self.num_experts:
      raise ValueError(
        "num_selected must be in [1, num_experts], got "
        f"num_selected={self.num_selected}, num_experts={self.num_experts}"
      )


class ByteLM(nn.Module):
  """`apply(params, input_ids=[B, S]) -> logits [B, S, 256]` float32.

  Attributes:
    config: its shape; `num_experts=None` makes the dense form.
  """

  config: ByteLMConfig

  @nn.compact
  def __call__(self, input_ids: jax.Array) -> jax.Array:
    """Returns the next byte's logits at every position.

    Args:
      input_ids: [B, S] integer bytes, S at most the context.

    Raises:
      ValueError: if the sequence is longer than the context.
    """
    config = self.config
    if input_ids.shape[1] > config.context:
      raise ValueError(
        "input_ids must be no longer than the context, got "
        f"length={input_ids.shape[1]}, context={config.context}"
      )
    x = _Embedding(config, name="embedding")(input_ids)
    for layer in range(config.num_layers):
      x = _Block(config, name=f"layer_{layer}")(x)
    x = _norm(config, "final_norm", x)
    logits = _dense(NUM_BYTES, config, "logits")(x)
    return logits.astype(jnp.float32)


class _Embedding(nn.Module):
  """Sum of position, byte and previous bytes; zeros before the first byte."""

  config: ByteLMConfig

  @nn.compact
  def __call__(self, input_ids: jax.Array) -> jax.Array:
    config = self.config
    length = input_ids.shape[1]
    init = nn.initializers.normal(0.5)
    shape = (NUM_PREVIOUS + 1, NUM_BYTES, config.model_dim)
    # Looked up in float32, whatever the type: the gradient is a scatter-add of
    # many tokens into few rows, which has no fast bfloat16 form on a GPU.
    table = self.param("bytes", init, shape)
    shape = (config.context, config.model_dim)
    position = self.param("position", init, shape)
    x = position[None, :length] + table[0][input_ids]
    for back in range(1, min(NUM_PREVIOUS + 1, length)):
      previous = table[back][input_ids[:, :-back]]
      x = x + jnp.pad(previous, ((0, 0), (back, 0), (0, 0)))
    return x.astype(config.dtype)


class _Block(nn.Module):
  config: ByteLMConfig

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    config = self.config
    x = x + _Attention(config, name="attention")(
      _norm(config, "attention_norm", x)
    )
    hidden = _norm(config, "ffn_norm", x)
    if config.num_experts is None:
      return x + _FeedForward(config, name="experts")(hidden)
    return x + _RoutedExperts(config, name="experts")(hidden)


class _Attention(nn.Module):
  config: ByteLMConfig

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    config = self.config
    width = config.num_heads * config.head_dim
    heads = (*x.shape[:2], 3, config.num_heads, config.head_dim)
    qkv = _dense(3 * width, config, "query_key_value")(x).reshape(heads)
    with _promotion():
      out = jax.nn.dot_product_attention(
        qkv[:, :, 0], qkv[:, :, 1], qkv[:, :, 2], is_causal=True
      )
    return _dense(config.model_dim, config, "output")(
      out.reshape(*x.shape[:2], width)
    )


class _FeedForward(nn.Module):
  """The merged block: the same names as the experts, without their axis."""

  config: ByteLMConfig

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    config = self.config
    experts = self.param("stack", _init_dense, config)
    return moe.apply(_cast(experts, config.dtype), x)


class _RoutedExperts(nn.Module):
  config: ByteLMConfig

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    config = self.config
    tokens = x.reshape(-1, config.model_dim)
    # The router is small and its softmax sensitive: float32 whatever the type.
    router_logits = nn.Dense(
      config.num_experts, use_bias=False, dtype=jnp.float32, name="router"
    )(tokens.astype(jnp.float32))
    self.sow("intermediates", "router_logits", router_logits)
    routing = moe.top_k(router_logits, config.num_selected)
    experts = self.param("stack", _init_stack, config)
    return moe.routed(_cast(experts, config.dtype), x, routing)


def _init_stack(key: jax.Array, config: ByteLMConfig) -> moe.Experts:
  return moe.init_experts(
    key,
    config.num_experts,
    model_dim=config.model_dim,
    expert_dim=config.expert_dim,
    activation="relu2",
  )


def _init_dense(key: jax.Array, config: ByteLMConfig) -> moe.FeedForward:
  one = dataclasses.replace(config, num_experts=1, num_selected=1)
  return moe.merge(_init_stack(key, one), jnp.ones(1))


def _cast(tree: T, dtype: str) -> T:
  return jax.tree.map(lambda leaf: leaf.astype(dtype), tree)


def _promotion() -> contextlib.AbstractContextManager[None]:
  """Flax's norms and JAX's attention compute bfloat16 in float32 by promotion.

  Strict promotion would refuse that.
  """
  return jax.numpy_dtype_promotion("standard")


def _norm(config: ByteLMConfig, name: str, x: jax.Array) -> jax.Array:
  with _promotion():
    return nn.RMSNorm(dtype=config.dtype, name=name)(x)


def _dense(features: int, config: ByteLMConfig, name: str) -> nn.Dense:
  return nn.Dense(features, use_bias=False, dtype=config.dtype, name=name)
