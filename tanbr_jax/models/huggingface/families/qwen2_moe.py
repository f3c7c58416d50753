"""Qwen1.5-MoE and Qwen2-MoE (Qwen Team, 2024): a shared expert with a gate."""

from tanbr_jax.models.decoder_config import DecoderConfig
from tanbr_jax.models.decoder_options import RouterOptions
from tanbr_jax.models.huggingface import common_config, mapping
from tanbr_jax.models.huggingface.config_keys import ConfigKeys
from tanbr_jax.models.huggingface.families import qwen3_moe
from tanbr_jax.models.huggingface.family import Family
from tanbr_jax.models.huggingface.mapping import Piece


def _config(keys: ConfigKeys) -> DecoderConfig:
  fields = common_config.read(keys)
  num_layers = fields["num_layers"]
  keys.get("sliding_window")
  window, first = {}, keys.get("max_window_layers", 28)
  if keys.get("use_sliding_window", False):
    # Every second layer of the first ones has a window.
    types = [
      "full_attention" if i % 2 or i >= first else "sliding_attention"
      for i in range(num_layers)
    ]
    window = common_config.windows(keys, num_layers, types, default=4096)
  elif "sliding_attention" in (keys.get("layer_types") or []):
    raise keys.error("layer_types has windows, got use_sliding_window=False")
  return DecoderConfig(
    **common_config.with_attention(
      fields, has_bias=keys.get("qkv_bias", True), **window
    ),
    **qwen3_moe.dense_layers(keys, num_layers),
    expert_dim=keys.size("moe_intermediate_size"),
    num_experts=keys.size("num_experts", "num_local_experts"),
    num_selected=keys.get("num_experts_per_tok", 4),
    shared_dim=keys.size("shared_expert_intermediate_size"),
    has_shared_gate=True,
    router=RouterOptions(renormalise=keys.get("norm_topk_prob", False)),
  )


def _feed_forward(
  config: DecoderConfig, layer: int, layout: str
) -> list[Piece]:
  pieces = qwen3_moe.feed_forward(config, layer, layout)
  if layer in config.dense_layers:
    return pieces
  stack, key = mapping.stack(layer), f"model.layers.{layer}.mlp.shared_expert"
  gate = Piece(f"{stack}/shared_gate", f"{key}_gate.weight", is_transposed=True)
  return [*pieces, *mapping.block(f"{stack}/shared", f"{key}."), gate]


FAMILY = Family(
  "qwen2_moe",
  _config,
  _feed_forward,
  ("by_expert", "fused"),
  no_dense_form="a gate that depends on the token scales its shared expert",
)
