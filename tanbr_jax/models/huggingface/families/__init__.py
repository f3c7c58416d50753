"""The families of checkpoints, by the `model_type` of their config.json."""

from collections.abc import Mapping
from types import MappingProxyType

from tanbr_jax.models.huggingface.families import (
  dots1,
  ernie4_5_moe,
  flex_olmo,
  glm4_moe,
  gpt_oss,
  granite,
  granitemoe,
  granitemoeshared,
  llama,
  minimax_m2,
  mistral,
  mixtral,
  olmo2,
  olmoe,
  phimoe,
  qwen2_moe,
  qwen3,
  qwen3_moe,
)
from tanbr_jax.models.huggingface.family import Family

_MODULES = (
  dots1,
  ernie4_5_moe,
  flex_olmo,
  glm4_moe,
  gpt_oss,
  granite,
  granitemoe,
  granitemoeshared,
  llama,
  minimax_m2,
  mistral,
  mixtral,
  olmo2,
  olmoe,
  phimoe,
  qwen2_moe,
  qwen3,
  qwen3_moe,
)
REGISTRY: Mapping[str, Family] = MappingProxyType(
  {module.FAMILY.model_type: module.FAMILY for module in _MODULES}
)

# Why a model type that people have is not read.
_LATENT = "its attention is latent (MLA)"
_TWO_STACKS = "it is an encoder-decoder"
REFUSED: Mapping[str, str] = MappingProxyType(
  {
    "deepseek_v2": _LATENT,
    "deepseek_v3": _LATENT,
    "deepseek_v32": _LATENT,
    "glm4_moe_lite": _LATENT,
    "kimi_k2": _LATENT,
    "longcat_flash": _LATENT,
    "minicpm3": _LATENT,
    "bart": _TWO_STACKS,
    "mt5": _TWO_STACKS,
    "nllb_moe": _TWO_STACKS,
    "nllb-moe": _TWO_STACKS,
    "switch_transformers": _TWO_STACKS,
    "t5": _TWO_STACKS,
    "umt5": _TWO_STACKS,
  }
)
