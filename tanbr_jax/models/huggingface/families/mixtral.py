"""Mixtral (Jiang et al., 2024)."""

from tanbr_jax.models.decoder_config import DecoderConfig
from tanbr_jax.models.huggingface import common_config, dense_keys, mapping
from tanbr_jax.models.huggingface.config_keys import ConfigKeys
from tanbr_jax.models.huggingface.family import Family
from tanbr_jax.models.huggingface.mapping import Piece

# Of w_gate, w_in and w_out in the layout of one tensor for each matrix.
NAMES = ("w1", "w3", "w2")


def _config(keys: ConfigKeys) -> DecoderConfig:
  fields = common_config.read(keys, theta=1e6)
  window = common_config.windows(keys, fields["num_layers"])
  return DecoderConfig(
    **common_config.with_attention(fields, **window),
    expert_dim=keys.size("intermediate_size"),
    num_experts=keys.size("num_local_experts", "num_experts"),
    num_selected=keys.get("num_experts_per_tok", 2),
  )


def feed_forward(config: DecoderConfig, layer: int, layout: str) -> list[Piece]:
  """The pieces of a layer's router and experts."""
  name = "mlp" if layout == "fused" else "block_sparse_moe"
  key = f"model.layers.{layer}.{name}"
  return [
    mapping.router(layer, f"{key}.gate.weight"),
    *mapping.experts(config, layer, f"{key}.experts", layout, names=NAMES),
  ]


FAMILY = Family(
  "mixtral",
  _config,
  feed_forward,
  ("by_expert", "fused"),
  dense_keys=dense_keys.sister(
    "mistral", "MistralForCausalLM", has_windows=True
  ),
)
