"""Mistral (Jiang et al., 2023)."""

from tanbr_jax.models.decoder_config import DecoderConfig
from tanbr_jax.models.huggingface import common_config
from tanbr_jax.models.huggingface.config_keys import ConfigKeys
from tanbr_jax.models.huggingface.family import Family


def _config(keys: ConfigKeys) -> DecoderConfig:
  fields = common_config.read(keys)
  window = common_config.windows(keys, fields["num_layers"], default=4096)
  return DecoderConfig(
    **common_config.with_attention(fields, **window),
    **common_config.dense(keys),
  )


FAMILY = Family("mistral", _config)
