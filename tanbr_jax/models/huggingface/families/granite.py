"""Granite 3 without experts (IBM, 2024): multipliers in four places."""

from typing import Any

from tanbr_jax.models.decoder_config import DecoderConfig
from tanbr_jax.models.huggingface import common_config
from tanbr_jax.models.huggingface.config_keys import ConfigKeys
from tanbr_jax.models.huggingface.family import Family


def read(keys: ConfigKeys) -> dict[str, Any]:
  """The fields of the config, but for those of FFNs."""
  fields = common_config.with_attention(
    common_config.read(keys),
    scale=keys.get("attention_multiplier", 1.0),
    **common_config.attention(keys),
  )
  return {
    **fields,
    "embedding_scale": keys.get("embedding_multiplier", 1.0),
    "residual_scale": keys.get("residual_multiplier", 1.0),
    "logit_scale": 1.0 / keys.get("logits_scaling", 1.0),
  }


def _config(keys: ConfigKeys) -> DecoderConfig:
  return DecoderConfig(
    **read(keys),
    **common_config.dense(keys),
    has_expert_bias=keys.get("mlp_bias", False),
  )


FAMILY = Family("granite", _config)
