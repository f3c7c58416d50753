"""Qwen3-MoE (Qwen Team, 2025)."""

from tanbr_jax.models.decoder_config import DecoderConfig
from tanbr_jax.models.decoder_options import RouterOptions
from tanbr_jax.models.huggingface import common_config, dense_keys, mapping
from tanbr_jax.models.huggingface.config_keys import ConfigKeys
from tanbr_jax.models.huggingface.dense_keys import Raw
from tanbr_jax.models.huggingface.family import Family
from tanbr_jax.models.huggingface.mapping import Piece


def dense_layers(keys: ConfigKeys, num_layers: int) -> dict[str, object]:
  """The layers that have no experts, and their width."""
  alone = keys.get("mlp_only_layers") or []
  step = keys.get("decoder_sparse_step", 1)
  dense = tuple(
    i for i in range(num_layers) if i in alone or (i + 1) % step != 0
  )
  width = keys.get("intermediate_size") if dense else None
  return {"dense_layers": dense, "dense_dim": width}


def _config(keys: ConfigKeys) -> DecoderConfig:
  fields = common_config.read(keys)
  window = {}
  if keys.get("use_sliding_window", False):
    window = common_config.windows(keys, fields["num_layers"], default=4096)
  keys.get("sliding_window")
  return DecoderConfig(
    **common_config.with_attention(
      fields, query_key_norm="head", **common_config.attention(keys), **window
    ),
    **dense_layers(keys, fields["num_layers"]),
    expert_dim=keys.size("moe_intermediate_size"),
    num_experts=keys.size("num_experts", "num_local_experts"),
    num_selected=keys.get("num_experts_per_tok", 8),
    router=RouterOptions(renormalise=keys.get("norm_topk_prob", False)),
  )


def feed_forward(config: DecoderConfig, layer: int, layout: str) -> list[Piece]:
  """The pieces of a layer's router and experts, or of its one block."""
  key = f"model.layers.{layer}.mlp"
  if layer in config.dense_layers:
    return mapping.block(mapping.stack(layer), f"{key}.")
  return [
    mapping.router(layer, f"{key}.gate.weight"),
    *mapping.experts(config, layer, f"{key}.experts", layout),
  ]


def _dense_keys(raw: Raw, config: DecoderConfig, width: int) -> Raw:
  sister = dense_keys.sister("qwen3", "Qwen3ForCausalLM", has_windows=True)
  # Its windows are in all layers, those of Qwen3 after the first ones.
  kind = "sliding" if config.attention.window else "full"
  return {
    **sister(raw, config, width),
    "use_sliding_window": kind == "sliding",
    "layer_types": [f"{kind}_attention"] * config.num_layers,
  }


FAMILY = Family(
  "qwen3_moe",
  _config,
  feed_forward,
  ("by_expert", "fused"),
  dense_keys=_dense_keys,
)
