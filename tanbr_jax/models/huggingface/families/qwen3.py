"""Qwen3 without experts (Qwen Team, 2025)."""

from tanbr_jax.models.decoder_config import DecoderConfig
from tanbr_jax.models.huggingface import common_config
from tanbr_jax.models.huggingface.config_keys import ConfigKeys
from tanbr_jax.models.huggingface.family import Family


def _config(keys: ConfigKeys) -> DecoderConfig:
  fields = common_config.read(keys)
  num_layers = fields["num_layers"]
  keys.get("sliding_window")
  # The first layers of a model with windows see everything.
  window, first = {}, keys.get("max_window_layers", 28)
  if keys.get("use_sliding_window", False):
    types = ["full_attention"] * min(first, num_layers)
    types += ["sliding_attention"] * (num_layers - len(types))
    window = common_config.windows(keys, num_layers, types, default=4096)
  elif "sliding_attention" in (keys.get("layer_types") or []):
    raise keys.error("layer_types has windows, got use_sliding_window=False")
  return DecoderConfig(
    **common_config.with_attention(
      fields, query_key_norm="head", **common_config.attention(keys), **window
    ),
    **common_config.dense(keys),
  )


FAMILY = Family("qwen3", _config)
