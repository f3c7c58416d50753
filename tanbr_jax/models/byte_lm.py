"""A small byte-level decoder whose FFNs are experts, or one merged block.

Pre-RMSNorm, causal attention, squared-ReLU experts. A position also sees the
embeddings of its two previous bytes, which makes small models learn far faster.

Letters: B batch, S sequence, D model width, E experts, L layers.
"""

import contextlib
import dataclasses
import functools
from typing import Any, ClassVar, TypeVar

import jax
import jax.numpy as jnp
from flax import linen as nn

from tanbr_jax import moe
from tanbr_jax.checks import ranges
from tanbr_jax.checks.names import check_choice
from tanbr_jax.checks.ranges import Count
from tanbr_jax.models.base import (
  DTYPES,
  Observe,
  Params,
  Reroute,
  check_attention_mask,
)
from tanbr_jax.moe import seam

T = TypeVar("T", moe.Experts, moe.FeedForward)
NUM_BYTES = 256
NUM_PREVIOUS = 2


@dataclasses.dataclass(frozen=True)
class ByteLMConfig(ranges.Checked):
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
    vocab_size: number of tokens, which is that of bytes.
  """

  vocab_size: ClassVar[int] = NUM_BYTES
  num_layers: Count = 3
  model_dim: Count = 128
  num_heads: Count = 2
  head_dim: Count = 64
  expert_dim: Count = 512
  num_experts: Count | None = 8
  num_selected: Count = 2
  context: Count = 64
  dtype: str = "float32"

  @property
  def moe_layers(self) -> tuple[int, ...]:
    """All layers have experts, or, once merged, what they became."""
    return tuple(range(self.num_layers))

  def __post_init__(self) -> None:
    """Refuses sizes that cannot be.

    Raises:
      ValueError: if a size is below 1, K is not in [1, E] or a type unknown.
    """
    super().__post_init__()
    check_choice("dtype", self.dtype, DTYPES)
    if self.num_experts is not None and self.num_selected > self.num_experts:
      raise ValueError(
        "num_selected must be in [1, num_experts], got "
        f"num_selected={self.num_selected}, num_experts={self.num_experts}"
      )


@dataclasses.dataclass(frozen=True)
class ByteLM:
  """A `models.Model` over bytes.

  Attributes:
    config: its shape; `num_experts=None` makes the dense form.
  """

  config: ByteLMConfig

  def init(self, key: jax.Array) -> Params:
    """Draws parameters.

    Args:
      key: random key, consumed.

    Returns:
      The float32 tree of `models.base.Params`.
    """
    return _init(_Network(self.config), key)

  def apply(
    self,
    params: Params,
    input_ids: jax.Array,
    *,
    attention_mask: jax.Array | None = None,
    reroute: Reroute | None = None,
    observe: Observe | None = None,
  ) -> Any:
    """Returns the next byte's logits at every position, see `models.Model`.

    Args:
      params: of `init`, or of `models.merge`.
      input_ids: [B, S] integer bytes, S at most the context.
      attention_mask: [B, S], False or 0 for padding; None for none.
      reroute: see `moe.seam`; None for the routers.
      observe: see `moe.seam`; None for nothing.

    Returns:
      [B, S, 256] float32; with `observe`, a pair of them and of what it saw.

    Raises:
      ValueError: if a shape is wrong, the sequence is longer than the context,
        or a dense model is given a `reroute`.
    """
    config = self.config
    mask = check_attention_mask(attention_mask, input_ids, config.context)
    seam.check_seam(
      config.num_layers, config.num_experts, reroute=reroute, observe=observe
    )
    logits, seen = _Network(config).apply(
      params, input_ids, mask, reroute, observe
    )
    return logits if observe is None else (logits, seen)

  def choose(self, router: Params, router_logits: jax.Array) -> moe.Routing:
    """Returns the choice of a layer's router, see `models.Model`."""
    del router
    return moe.top_k(router_logits, self.config.num_selected)


class _Network(nn.Module):
  config: ByteLMConfig

  @nn.compact
  def __call__(
    self,
    input_ids: jax.Array,
    mask: jax.Array | None = None,
    reroute: Reroute | None = None,
    observe: Observe | None = None,
  ) -> tuple[jax.Array, Any]:
    """Logits [B, S, 256], and what was seen, stacked over layers."""
    config, seen = self.config, []
    x = _Embedding(config, name="embedding")(input_ids, mask)
    for layer in range(config.num_layers):
      x, seen_here = _Block(config, name=f"layer_{layer}")(
        x,
        mask,
        seam.of_layer(reroute, layer),
        seam.of_layer(observe, layer),
      )
      seen.append(seen_here)
    x = _norm(config, "final_norm", x)
    logits = _dense(NUM_BYTES, config, "logits")(x).astype(jnp.float32)
    return logits, seam.stack_layers(seen)


# Compiled: drawn operation by operation it takes seconds.
@functools.partial(jax.jit, static_argnums=0)
def _init(network: _Network, key: jax.Array) -> Params:
  return network.init(key, jnp.zeros((1, 1), jnp.int32))


class _Embedding(nn.Module):
  """Sum of position, byte and previous bytes; zeros before the first byte."""

  config: ByteLMConfig

  @nn.compact
  def __call__(self, input_ids: jax.Array, mask: jax.Array | None) -> jax.Array:
    config = self.config
    length = input_ids.shape[1]
    init = nn.initializers.normal(0.5)
    shape = (NUM_PREVIOUS + 1, NUM_BYTES, config.model_dim)
    # Looked up in float32, whatever the type: the gradient is a scatter-add of
    # many tokens into few rows, which has no fast bfloat16 form on a GPU.
    table = self.param("bytes", init, shape, jnp.float32)
    shape = (config.context, config.model_dim)
    position = self.param("position", init, shape, jnp.float32)
    if mask is None:
      x = position[None, :length] + table[0][input_ids]
    else:
      # Counted from the first byte that is not padding.
      place = jnp.cumsum(mask, axis=1, dtype=jnp.int32) - 1
      x = position[jnp.maximum(place, 0)] + table[0][input_ids]
    for back in range(1, min(NUM_PREVIOUS + 1, length)):
      previous = table[back][input_ids[:, :-back]]
      if mask is not None:
        previous = jnp.where(mask[:, :-back, None], previous, 0)
      x = x + jnp.pad(previous, ((0, 0), (back, 0), (0, 0)))
    return x.astype(config.dtype)


class _Block(nn.Module):
  config: ByteLMConfig

  @nn.compact
  def __call__(
    self,
    x: jax.Array,
    mask: jax.Array | None,
    reroute: Reroute | None,
    observe: Observe | None,
  ) -> tuple[jax.Array, Any]:
    config = self.config
    x = x + _Attention(config, name="attention")(
      _norm(config, "attention_norm", x), mask
    )
    hidden = _norm(config, "ffn_norm", x)
    if config.num_experts is None:
      block = _FeedForward(config, name="experts")
      out, seen = block(hidden, mask, observe)
    else:
      experts = _RoutedExperts(config, name="experts")
      out, seen = experts(hidden, x, mask, reroute, observe)
    return x + out, seen


class _Attention(nn.Module):
  config: ByteLMConfig

  @nn.compact
  def __call__(self, x: jax.Array, mask: jax.Array | None) -> jax.Array:
    config = self.config
    width = config.num_heads * config.head_dim
    heads = (*x.shape[:2], 3, config.num_heads, config.head_dim)
    qkv = _dense(3 * width, config, "query_key_value")(x).reshape(heads)
    with _promotion():
      out = jax.nn.dot_product_attention(
        qkv[:, :, 0],
        qkv[:, :, 1],
        qkv[:, :, 2],
        mask=None if mask is None else mask[:, None, None, :],
        is_causal=True,
      )
    return _dense(config.model_dim, config, "output")(
      out.reshape(*x.shape[:2], width)
    )


class _FeedForward(nn.Module):
  """The merged block: the same names as the experts, without their axis."""

  config: ByteLMConfig

  @nn.compact
  def __call__(
    self, x: jax.Array, mask: jax.Array | None, observe: Observe | None
  ) -> tuple[jax.Array, Any]:
    config = self.config
    block = _cast(self.param("stack", _init_dense, config), config.dtype)
    return seam.apply_block(block, x, token_mask=mask, observe=observe)


class _RoutedExperts(nn.Module):
  config: ByteLMConfig

  @nn.compact
  def __call__(
    self,
    x: jax.Array,
    residual: jax.Array,
    mask: jax.Array | None,
    reroute: Reroute | None,
    observe: Observe | None,
  ) -> tuple[jax.Array, Any]:
    config = self.config
    tokens = x.reshape(-1, config.model_dim)
    # Merged or dropped experts leave the router as it is: more outputs.
    routes = self.get_variable("params", "routes")
    constants = self.get_variable("params", "constants")
    num_outputs = config.num_experts if routes is None else len(routes)
    # The router is small and its softmax sensitive: float32 whatever the type.
    router_logits = nn.Dense(
      num_outputs, use_bias=False, dtype=jnp.float32, name="router"
    )(tokens.astype(jnp.float32))
    experts = self.param("stack", _init_stack, config)
    out, seen = moe.apply_layer(
      _cast(experts, config.dtype),
      tokens,
      router_logits,
      ByteLM(config).choose({}, router_logits),
      routes=routes,
      constants=None if constants is None else constants.astype(config.dtype),
      token_mask=None if mask is None else mask.reshape(-1),
      residual=residual.reshape(-1, config.model_dim),
      reroute=reroute,
      observe=observe,
    )
    return out.reshape(x.shape), seen


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
  return moe.merge(_init_stack(key, one), jnp.ones(1, jnp.float32))


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
