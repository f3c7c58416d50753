"""ERNIE 4.5 with experts (Baidu, 2025): pairs of neighbours are turned."""

from tanbr_jax.models.decoder_config import DecoderConfig
from tanbr_jax.models.decoder_options import RouterOptions
from tanbr_jax.models.huggingface import common_config, dense_keys, mapping
from tanbr_jax.models.huggingface.config_keys import ConfigKeys
from tanbr_jax.models.huggingface.family import Family
from tanbr_jax.models.huggingface.mapping import Piece


def _config(keys: ConfigKeys) -> DecoderConfig:
  fields = common_config.read(keys, theta=500_000.0, is_interleaved=True)
  fields["tied"] = keys.get("tie_word_embeddings", True)
  has_bias = keys.get("use_bias", False)
  # A floor of the gates' sum that no sum of probabilities comes near.
  if keys.get("moe_norm_min", 1e-12) > 1e-6:
    raise keys.error(
      f"moe_norm_min must be at most 1e-6, got {keys.get('moe_norm_min')}"
    )
  keys.only("moe_gate", ("topk",))
  keys.only("moe_use_aux_free", (True,))
  num_layers, width = fields["num_layers"], keys.size("moe_intermediate_size")
  dense = _dense_layers(keys, num_layers)
  shared = keys.get("moe_num_shared_experts", 2)
  return DecoderConfig(
    **common_config.with_attention(
      fields, has_bias=has_bias, has_output_bias=has_bias
    ),
    expert_dim=width,
    num_experts=keys.size("moe_num_experts", "num_experts"),
    num_selected=keys.get("moe_k", 6, "num_experts_per_tok"),
    shared_dim=width * shared or None,
    dense_layers=dense,
    dense_dim=keys.size("intermediate_size") if dense else None,
    has_dense_bias=has_bias,
    has_head_bias=has_bias,
    router=RouterOptions(has_correction_bias=True),
  )


def _dense_layers(keys: ConfigKeys, num_layers: int) -> tuple[int, ...]:
  first = keys.get("moe_layer_start_index", 1)
  last = keys.get("moe_layer_end_index", -1)
  step = keys.get("moe_layer_interval", 1)
  last = num_layers - 1 if last == -1 else last
  return tuple(
    i
    for i in range(num_layers)
    if not first <= i <= last or (i + 1) % step != 0
  )


def _feed_forward(
  config: DecoderConfig, layer: int, layout: str
) -> list[Piece]:
  stack, key = mapping.stack(layer), f"model.layers.{layer}.mlp"
  has_bias = config.has_dense_bias
  if layer in config.dense_layers:
    return mapping.block(stack, f"{key}.", has_bias=has_bias)
  statics = (
    f"{key}.gate.moe_statics" if layout == "fused" else f"{key}.moe_statics"
  )
  bias = mapping.router(
    layer, f"{statics}.e_score_correction_bias", "correction_bias"
  )
  pieces = [
    mapping.router(layer, f"{key}.gate.weight"),
    bias._replace(lead=1),
    *mapping.experts(config, layer, f"{key}.experts", layout),
  ]
  if config.shared_dim is not None:
    shared, theirs = f"{stack}/shared", f"{key}.shared_experts."
    pieces += mapping.block(shared, theirs, has_bias=has_bias)
  return pieces


FAMILY = Family(
  "ernie4_5_moe",
  _config,
  _feed_forward,
  ("by_expert", "fused"),
  (r"model\.mtp_.*", "next_tokens"),
  # The first layer with experts is past the last one.
  dense_keys=dense_keys.dense_layers(
    moe_layer_start_index=None, moe_layer_end_index=-1
  ),
)
