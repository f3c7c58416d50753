"""FlexOlmo (Shi et al., 2025): OLMo 2 with experts."""

from tanbr_jax.models.decoder_config import DecoderConfig
from tanbr_jax.models.huggingface import common_config, dense_keys
from tanbr_jax.models.huggingface.config_keys import ConfigKeys
from tanbr_jax.models.huggingface.families import olmoe
from tanbr_jax.models.huggingface.family import Family


def _config(keys: ConfigKeys) -> DecoderConfig:
  fields = common_config.read(keys, theta=500_000.0)
  return DecoderConfig(
    **common_config.with_attention(
      fields, query_key_norm="projection", **common_config.attention(keys)
    ),
    **olmoe.experts(keys, 5),
    norm_place="after",
  )


FAMILY = Family(
  "flex_olmo",
  _config,
  olmoe.feed_forward,
  ("by_expert", "fused"),
  dense_keys=dense_keys.sister("olmo2", "Olmo2ForCausalLM"),
)
