"""Phi-3.5-MoE (Microsoft, 2024): LayerNorm and two picks of sparsemixer."""

from tanbr_jax.models.decoder_config import DecoderConfig
from tanbr_jax.models.decoder_options import RouterOptions
from tanbr_jax.models.huggingface import common_config, mapping
from tanbr_jax.models.huggingface.config_keys import ConfigKeys
from tanbr_jax.models.huggingface.families import mixtral
from tanbr_jax.models.huggingface.family import Family
from tanbr_jax.models.huggingface.mapping import Piece


def _config(keys: ConfigKeys) -> DecoderConfig:
  fields = common_config.read(keys, theta=1e6)
  window = common_config.windows(keys, fields["num_layers"])
  return DecoderConfig(
    **common_config.with_attention(
      fields, **common_config.attention(keys), **window
    ),
    expert_dim=keys.size("intermediate_size"),
    num_experts=keys.size("num_local_experts"),
    num_selected=keys.get("num_experts_per_tok", 2),
    norm="layer",
    has_head_bias=keys.get("lm_head_bias", False),
    router=RouterOptions(
      scores="sparsemixer", tolerance=keys.get("router_jitter_noise", 0.01)
    ),
  )


def _feed_forward(
  config: DecoderConfig, layer: int, layout: str
) -> list[Piece]:
  key = f"model.layers.{layer}"
  router = f"{key}.block_sparse_moe.gate.weight"
  experts = f"{key}.block_sparse_moe.experts"
  if layout == "fused":
    router, experts = f"{key}.mlp.router.weight", f"{key}.mlp.experts"
  return [
    mapping.router(layer, router),
    *mapping.experts(config, layer, experts, layout, names=mixtral.NAMES),
  ]


FAMILY = Family(
  "phimoe",
  _config,
  _feed_forward,
  ("by_expert", "fused"),
  no_dense_form="its router (sparsemixer) always picks two experts",
)
