"""GLM-4.5 (Zhipu AI, 2025): sigmoid router with groups, partial rotary."""

from typing import Any

from tanbr_jax import moe
from tanbr_jax.models.decoder_config import DecoderConfig
from tanbr_jax.models.decoder_options import RouterOptions
from tanbr_jax.models.huggingface import common_config, dense_keys, mapping
from tanbr_jax.models.huggingface.config_keys import ConfigKeys
from tanbr_jax.models.huggingface.family import Family
from tanbr_jax.models.huggingface.mapping import Piece


def _config(keys: ConfigKeys) -> DecoderConfig:
  fields = common_config.read(keys, partial=0.5)
  return DecoderConfig(
    **common_config.with_attention(
      fields,
      query_key_norm="head" if keys.get("use_qk_norm", False) else None,
      **common_config.attention(keys, output_bias=False),
    ),
    **experts(keys, fields["num_layers"], 8, 1, 1, True),
  )


def experts(
  keys: ConfigKeys,
  num_layers: int,
  num_selected: int,
  num_shared: int,
  first: int,
  renormalise: bool,
) -> dict[str, Any]:
  """The fields of experts, routers and the first, dense layers.

  Args:
    keys: of the config.json.
    num_layers: of the model.
    num_selected: the default of K.
    num_shared: the default of the number of shared experts.
    first: the default of the number of dense layers.
    renormalise: whether gates are scaled to sum to one by default.
  """
  dense = min(keys.get("first_k_dense_replace", first), num_layers)
  width = keys.size("moe_intermediate_size")
  groups, chosen = keys.get("n_group", 1), keys.get("topk_group", 1)
  limit = moe.GroupLimit(groups, chosen, "top2_sum") if groups > 1 else None
  return {
    "expert_dim": width,
    "num_experts": keys.size("n_routed_experts", "num_local_experts"),
    "num_selected": keys.get("num_experts_per_tok", num_selected),
    "shared_dim": width * keys.get("n_shared_experts", num_shared) or None,
    "dense_layers": tuple(range(dense)),
    "dense_dim": keys.size("intermediate_size") if dense else None,
    "router": RouterOptions(
      scores="sigmoid",
      renormalise=keys.get("norm_topk_prob", renormalise),
      gate_scale=keys.get("routed_scaling_factor", 1.0),
      groups=limit,
      has_correction_bias=True,
    ),
  }


def feed_forward(config: DecoderConfig, layer: int, layout: str) -> list[Piece]:
  """The pieces of a layer's router and experts, or of its one block."""
  stack, key = mapping.stack(layer), f"model.layers.{layer}.mlp"
  if layer in config.dense_layers:
    return mapping.block(stack, f"{key}.")
  bias = f"{key}.gate.e_score_correction_bias"
  pieces = [
    mapping.router(layer, f"{key}.gate.weight"),
    mapping.router(layer, bias, "correction_bias"),
    *mapping.experts(config, layer, f"{key}.experts", layout),
  ]
  if config.shared_dim is not None:
    pieces += mapping.block(f"{stack}/shared", f"{key}.shared_experts.")
  return pieces


FAMILY = Family(
  "glm4_moe",
  _config,
  feed_forward,
  ("by_expert", "fused"),
  ("next_tokens",),
  dense_keys=dense_keys.dense_layers(first_k_dense_replace=None),
)
