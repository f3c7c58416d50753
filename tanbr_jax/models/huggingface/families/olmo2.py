"""OLMo 2 (Team OLMo, 2025): norms after attention and FFN."""

from tanbr_jax.models.decoder_config import DecoderConfig
from tanbr_jax.models.huggingface import common_config
from tanbr_jax.models.huggingface.config_keys import ConfigKeys
from tanbr_jax.models.huggingface.family import Family


def _config(keys: ConfigKeys) -> DecoderConfig:
  fields = common_config.read(keys)
  return DecoderConfig(
    **common_config.with_attention(
      fields, query_key_norm="projection", **common_config.attention(keys)
    ),
    **common_config.dense(keys),
    norm_place="after",
  )


FAMILY = Family("olmo2", _config)
