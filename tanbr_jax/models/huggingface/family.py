"""A family of checkpoints: its config keys and its tensors' names."""

import dataclasses
import re
from collections.abc import Callable

from tanbr_jax.models.decoder_config import DecoderConfig
from tanbr_jax.models.huggingface import mapping
from tanbr_jax.models.huggingface.config_keys import ConfigKeys
from tanbr_jax.models.huggingface.dense_keys import DenseKeys
from tanbr_jax.models.huggingface.mapping import Piece

# Rotary frequencies, which older files carry and which follow from the config.
_UNUSED = (r".*rotary_emb\.inv_freq",)


def dense_blocks(config: DecoderConfig, layer: int, layout: str) -> list[Piece]:
  """The FFN of a layer of a family without experts."""
  del layout
  return mapping.block(
    mapping.stack(layer),
    f"model.layers.{layer}.mlp.",
    has_bias=config.has_expert_bias,
  )


@dataclasses.dataclass(frozen=True)
class Family:
  """One `model_type`.

  Attributes:
    model_type: as config.json names it.
    config: reads the config's keys.
    feed_forward: the pieces of a layer's experts, router and shared expert, or
      of its one block, in a layout.
    layouts: names of the layouts that its files come in.
    unused: patterns of tensors that its files are known to carry and that no
      forward pass here needs.
    dense_keys: of the config.json of a merged model; None where it is that of
      the family, which has no experts.
    no_dense_form: what no dense model computes, where there is no such config.
  """

  model_type: str
  config: Callable[[ConfigKeys], DecoderConfig]
  feed_forward: Callable[[DecoderConfig, int, str], list[Piece]] = dense_blocks
  layouts: tuple[str, ...] = ("dense",)
  unused: tuple[str, ...] = ()
  dense_keys: DenseKeys | None = None
  no_dense_form: str | None = None

  def pieces(self, config: DecoderConfig, layout: str) -> list[Piece]:
    """All pieces of a model in a layout."""
    pieces = mapping.outside_layers(config)
    for layer in range(config.num_layers):
      pieces += mapping.attention(config, layer)
      pieces += self.feed_forward(config, layer, layout)
    return pieces

  def is_unused(self, key: str, config: DecoderConfig) -> bool:
    """Whether a tensor is known and not needed.

    Layers past the last one predict further tokens, and a head is a copy where
    it is tied.
    """
    layer = re.match(r"model\.layers\.(\d+)\.", key)
    if layer and int(layer[1]) >= config.num_layers:
      return "next_tokens" in self.unused
    patterns = (*_UNUSED, *self.unused)
    if config.tied:
      patterns = (*patterns, r"lm_head\.weight")
    return any(re.fullmatch(pattern, key) for pattern in patterns)
