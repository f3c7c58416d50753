"""Llama 1 to 3 (Touvron et al., 2023; Grattafiori et al., 2024)."""

from tanbr_jax.models.decoder_config import DecoderConfig
from tanbr_jax.models.huggingface import common_config
from tanbr_jax.models.huggingface.config_keys import ConfigKeys
from tanbr_jax.models.huggingface.family import Family


def _config(keys: ConfigKeys) -> DecoderConfig:
  fields = common_config.read(keys)
  return DecoderConfig(
    **common_config.with_attention(fields, **common_config.attention(keys)),
    **common_config.dense(keys),
    has_expert_bias=keys.get("mlp_bias", False),
  )


FAMILY = Family("llama", _config)
