"""OLMoE (Muennighoff et al., 2024)."""

from tanbr_jax.models.decoder_config import DecoderConfig
from tanbr_jax.models.decoder_options import RouterOptions
from tanbr_jax.models.huggingface import common_config, dense_keys, mapping
from tanbr_jax.models.huggingface.config_keys import ConfigKeys
from tanbr_jax.models.huggingface.family import Family
from tanbr_jax.models.huggingface.mapping import Piece


def _config(keys: ConfigKeys) -> DecoderConfig:
  fields = common_config.read(keys)
  return DecoderConfig(
    **common_config.with_attention(
      fields,
      query_key_norm="projection",
      clip=keys.get("clip_qkv"),
      **common_config.attention(keys),
    ),
    **experts(keys, 8),
  )


def experts(keys: ConfigKeys, num_selected: int) -> dict[str, object]:
  """The fields of experts; K has a default."""
  return {
    "expert_dim": keys.size("intermediate_size"),
    "num_experts": keys.size("num_experts", "num_local_experts"),
    "num_selected": keys.get("num_experts_per_tok", num_selected),
    "router": RouterOptions(renormalise=keys.get("norm_topk_prob", False)),
  }


def feed_forward(config: DecoderConfig, layer: int, layout: str) -> list[Piece]:
  """The pieces of a layer's router and experts."""
  key = f"model.layers.{layer}.mlp"
  return [
    mapping.router(layer, f"{key}.gate.weight"),
    *mapping.experts(config, layer, f"{key}.experts", layout),
  ]


# Its norms come first, those of the OLMo families without experts after.
FAMILY = Family(
  "olmoe",
  _config,
  feed_forward,
  ("by_expert", "fused"),
  dense_keys=dense_keys.one_expert("num_experts", "num_local_experts"),
)
