"""The contract that every model keeps.

Environments, training, the oracle, scoring and serving are written to `Model`;
what decodes token by token is a `Generator`. `reroute` and `observe` are the
seam, see `tanbr_jax.moe.seam`.

Letters: B batch, S sequence, V here the vocabulary, L layers with experts, E
experts.
"""

from collections.abc import Callable
from typing import Any, Protocol

import jax

from tanbr_jax.moe import MoeInput, MoeOutput, Routing

__all__ = [
  "DTYPES",
  "Generator",
  "Model",
  "ModelConfig",
  "MoeInput",
  "MoeOutput",
  "Observe",
  "Params",
  "Reroute",
]

# {"params": {"layer_0": {"experts": {"router": ..., "stack": ...}}, ...}}: the
# stack is `moe.Experts`, or, once merged, a `moe.FeedForward` without a router.
# Merged in groups, "routes" beside them says where each output of the router
# leads to (`moe.Routes`), and "constants" [P, D] what it adds if nowhere.
# In a model of fine-tunes any array may be a `fine_tunes.Variants`.
Params = dict[str, Any]
# `jax.tree_util.Partial`s, whose trees have a leading [L].
Reroute = Callable[[MoeInput], Routing]
Observe = Callable[[MoeInput, MoeOutput], Any]
# What a model computes in.
DTYPES = ("bfloat16", "float16", "float32")


class ModelConfig(Protocol):
  """The shape of a model, a frozen dataclass.

  Attributes:
    moe_layers: the L layers with experts, or, once merged, with what they
      became; parameters call them "layer_{index}".
    num_experts: E, or None for the dense model that merging makes.
    num_selected: K, experts per token of the routed forward.
    vocab_size: V, number of tokens.
    context: the longest sequence, None where there is no such limit.
  """

  moe_layers: tuple[int, ...]
  num_experts: int | None
  num_selected: int
  vocab_size: int
  context: int | None


class Model(Protocol):
  """A language model as pure functions of its parameters, a frozen dataclass.

  Attributes:
    config: its shape; `dataclasses.replace(config, num_experts=None)` is that
      of its dense form.
  """

  config: ModelConfig

  def init(self, key: jax.Array) -> Params:
    """Draws parameters."""

  def apply(
    self,
    params: Params,
    input_ids: jax.Array,
    *,
    attention_mask: jax.Array | None = None,
    reroute: Reroute | None = None,
    observe: Observe | None = None,
  ) -> Any:
    """Returns the next token's logits at every position.

    Args:
      params: of `init`, or of `models.merge`.
      input_ids: [B, S] integer tokens.
      attention_mask: [B, S], False or 0 for padding, on the left or on the
        right; None for none. Logits at padding are finite and mean nothing.
      reroute: chooses experts in the routers' place; None for the routers.
      observe: looks at every layer of experts; None for nothing.

    Returns:
      [B, S, V] float32; with `observe`, a pair of them and of what it saw,
      stacked over layers.

    Raises:
      ValueError: if a shape is wrong, or a dense model is given a `reroute`.
    """

  def choose(self, router: Params, router_logits: jax.Array) -> Routing:
    """Returns a layer's routing of given logits.

    Args:
      router: the parameters of that layer's router, of which only what is not
        in the logits yet is read (a correction bias); it may lack the rest.
      router_logits: [N, E] float32; -inf closes an expert to a token.
    """


class Generator(Model, Protocol):
  """A model that decodes token by token with a cache."""

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
    """Returns the logits [B, V] after each prompt, a cache, and what was seen.

    What was seen is there with `observe` alone.
    """

  def decode_step(
    self,
    params: Params,
    cache: Any,
    token_ids: jax.Array,
    *,
    attention_mask: jax.Array | None = None,
    reroute: Reroute | None = None,
    observe: Observe | None = None,
  ) -> Any:
    """Returns the logits [B, V] after one more token [B], as `prefill` does.

    The mask [B] is False for sequences that have ended, for good: no expert is
    run for them.
    """


def check_attention_mask(
  attention_mask: jax.Array | None, input_ids: jax.Array, context: int | None
) -> jax.Array | None:
  """Returns an attention mask as booleans.

  Raises:
    ValueError: if the tokens are not [B, S] or more than the context, or the
      mask has another shape.
  """
  if input_ids.ndim != 2:
    raise ValueError(f"input_ids must be [B, S], got {input_ids.shape}")
  length = input_ids.shape[1]
  if context is not None and length > context:
    raise ValueError(
      "input_ids must be no longer than the context, got "
      f"length={length}, context={context}"
    )
  if attention_mask is None:
    return None
  if attention_mask.shape != input_ids.shape:
    raise ValueError(
      f"attention_mask must be [B, S] = {input_ids.shape}, got "
      f"{attention_mask.shape}"
    )
  return attention_mask.astype(bool)
