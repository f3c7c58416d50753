"""MiniMax-M2 (MiniMax, 2025)."""

from tanbr_jax.models.decoder_config import DecoderConfig
from tanbr_jax.models.decoder_options import RouterOptions
from tanbr_jax.models.huggingface import common_config, dense_keys, mapping
from tanbr_jax.models.huggingface.config_keys import ConfigKeys
from tanbr_jax.models.huggingface.families import mixtral
from tanbr_jax.models.huggingface.family import Family
from tanbr_jax.models.huggingface.mapping import Piece


def _config(keys: ConfigKeys) -> DecoderConfig:
  fields = common_config.read(keys, theta=5e6)
  # Switches of earlier models of the family, at the only values of this one.
  for name, value in (
    ("qk_norm_type", "per_layer"),
    ("scoring_func", "sigmoid"),
    ("shared_intermediate_size", 0),
    ("use_qk_norm", True),
    ("use_routing_bias", True),
    ("layernorm_full_attention_beta", 1.0),
    ("layernorm_linear_attention_beta", 1.0),
    ("layernorm_mlp_beta", 1.0),
  ):
    keys.only(name, (value,))
  keys.get("shared_moe_mode")
  kinds = keys.get("attn_type_list") or []
  if any(kind != 1 for kind in kinds):
    raise keys.error(f"attn_type_list must be all 1, got {kinds}")
  return DecoderConfig(
    **common_config.with_attention(fields, query_key_norm="projection"),
    expert_dim=keys.size("intermediate_size"),
    num_experts=keys.size("num_local_experts", "num_experts"),
    num_selected=keys.get("num_experts_per_tok", 8),
    router=RouterOptions(scores="sigmoid", has_correction_bias=True),
  )


def _feed_forward(
  config: DecoderConfig, layer: int, layout: str
) -> list[Piece]:
  name = "mlp" if layout == "fused" else "block_sparse_moe"
  bias = f"model.layers.{layer}.{name}.e_score_correction_bias"
  return [
    *mixtral.feed_forward(config, layer, layout),
    mapping.router(layer, bias, "correction_bias"),
  ]


FAMILY = Family(
  "minimax_m2",
  _config,
  _feed_forward,
  ("by_expert", "fused"),
  ("next_tokens", r"model\.mtp\..*"),
  dense_keys=dense_keys.one_expert("num_local_experts", "num_experts"),
)
