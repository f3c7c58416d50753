"""Granite with experts and a shared one (IBM, 2025)."""

from tanbr_jax.models.decoder_config import DecoderConfig
from tanbr_jax.models.huggingface import dense_keys, mapping
from tanbr_jax.models.huggingface.config_keys import ConfigKeys
from tanbr_jax.models.huggingface.families import granitemoe
from tanbr_jax.models.huggingface.family import Family
from tanbr_jax.models.huggingface.mapping import Piece


def _config(keys: ConfigKeys) -> DecoderConfig:
  # Zero is no shared expert.
  shared_dim = keys.get("shared_intermediate_size", 0) or None
  return DecoderConfig(**granitemoe.read(keys), shared_dim=shared_dim)


def _feed_forward(
  config: DecoderConfig, layer: int, layout: str
) -> list[Piece]:
  pieces = granitemoe.feed_forward(config, layer, layout)
  if config.shared_dim is None:
    return pieces
  key = f"model.layers.{layer}.shared_mlp"
  shared = mapping.joined_block(
    f"{mapping.stack(layer)}/shared",
    f"{key}.input_linear.weight",
    f"{key}.output_linear.weight",
  )
  return [*pieces, *shared]


FAMILY = Family(
  "granitemoeshared",
  _config,
  _feed_forward,
  ("linear", "fused"),
  dense_keys=dense_keys.sister("granite", "GraniteForCausalLM"),
)
