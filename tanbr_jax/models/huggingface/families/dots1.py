"""dots.llm1 (rednote hilab, 2025)."""

from tanbr_jax.models.decoder_config import DecoderConfig
from tanbr_jax.models.huggingface import common_config, dense_keys
from tanbr_jax.models.huggingface.config_keys import ConfigKeys
from tanbr_jax.models.huggingface.families import glm4_moe
from tanbr_jax.models.huggingface.family import Family


def _config(keys: ConfigKeys) -> DecoderConfig:
  fields = common_config.read(keys)
  num_layers = fields["num_layers"]
  keys.only("moe_layer_freq", (1,))
  keys.only("scoring_func", ("sigmoid", "noaux_tc"))
  keys.only("topk_method", ("noaux_tc",))
  # The first layers see everything.
  first = keys.get("max_window_layers", 62)
  types = ["full_attention"] * min(first, num_layers)
  has_window = keys.get("sliding_window") or not keys.has("sliding_window")
  rest = "sliding_attention" if has_window else "full_attention"
  types += [rest] * (num_layers - len(types))
  return DecoderConfig(
    **common_config.with_attention(
      fields,
      query_key_norm="head",
      **common_config.attention(keys),
      **common_config.windows(keys, num_layers, types, default=4096),
    ),
    **glm4_moe.experts(keys, num_layers, 6, 2, 0, False),
  )


FAMILY = Family(
  "dots1",
  _config,
  glm4_moe.feed_forward,
  ("by_expert", "fused"),
  dense_keys=dense_keys.dense_layers(first_k_dense_replace=None),
)
