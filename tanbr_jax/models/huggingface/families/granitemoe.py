"""Granite 3 with experts (IBM, 2024)."""

from typing import Any

from tanbr_jax.models.decoder_config import DecoderConfig
from tanbr_jax.models.decoder_options import RouterOptions
from tanbr_jax.models.huggingface import dense_keys, mapping
from tanbr_jax.models.huggingface.config_keys import ConfigKeys
from tanbr_jax.models.huggingface.families import granite
from tanbr_jax.models.huggingface.family import Family
from tanbr_jax.models.huggingface.mapping import Piece


def read(keys: ConfigKeys) -> dict[str, Any]:
  """The fields of the config."""
  return {
    **granite.read(keys),
    "expert_dim": keys.size("intermediate_size"),
    "num_experts": keys.size("num_local_experts"),
    "num_selected": keys.get("num_experts_per_tok", 2),
    "router": RouterOptions(scores="softmax_after"),
  }


def feed_forward(config: DecoderConfig, layer: int, layout: str) -> list[Piece]:
  """The pieces of a layer's router and experts."""
  stack, key = mapping.stack(layer), f"model.layers.{layer}.block_sparse_moe"
  if layout == "fused":
    return [
      mapping.router(layer, f"{key}.router.weight"),
      *mapping.experts(config, layer, f"{key}.experts", layout),
    ]
  joined, out = f"{key}.input_linear.weight", f"{key}.output_linear.weight"
  return [
    mapping.router(layer, f"{key}.router.layer.weight"),
    *mapping.joined_block(stack, joined, out),
  ]


def _config(keys: ConfigKeys) -> DecoderConfig:
  return DecoderConfig(**read(keys))


FAMILY = Family(
  "granitemoe",
  _config,
  feed_forward,
  ("linear", "fused"),
  dense_keys=dense_keys.sister("granite", "GraniteForCausalLM"),
)
