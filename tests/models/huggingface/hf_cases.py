"""Tiny checkpoints of every family: configs, and parameters by name and seed.

Sizes are odd where they can be, heads times their width is not the model's
width where a family allows it, and sequences are longer than the windows.
"""

import zlib

import numpy as np

LENGTH = 12
NUM_NEW = 9  # tokens after each prompt
VOCAB = 37


def values(key, shape, seed):
  """A tensor's values: no norm is one, no bias zero, no two tensors alike.

  Of `RandomState`, whose stream is the same in all versions of NumPy.
  """
  state = np.random.RandomState((zlib.crc32(key.encode()) + seed) % 2**32)
  noise = state.standard_normal(shape).astype(np.float32)
  if "norm" in key and key.endswith("weight"):
    return 1 + np.float32(0.3) * noise
  if "bias" in key or "sinks" in key:
    return np.float32(0.2) * noise
  if "lora_" in key:
    return np.float32(0.3) * noise
  if "embed_tokens" in key:
    return noise
  # GPT-OSS's matrices are the other way, and some of its products are to be
  # past the clamp.
  is_other_way = key.endswith(("gate_up_proj", "down_proj"))
  fan_in = shape[-2 if is_other_way else -1]
  scale = 4.0 if key.endswith("gate_up_proj") else 1.2
  return np.float32(scale * fan_in**-0.5) * noise


def inputs(seed):
  """Three sequences [3, S]: a whole one, padding on the left, on the right."""
  state = np.random.RandomState(seed)
  ids = state.randint(3, VOCAB, (3, LENGTH)).astype(np.int32)
  mask = np.ones_like(ids)
  mask[1, :4], mask[2, -5:] = 0, 0
  return ids, mask


def prompts(seed):
  """The tokens of each of the `inputs`."""
  ids, mask = inputs(seed)
  return [row[is_token > 0] for row, is_token in zip(ids, mask, strict=True)]


_PLAIN = {
  "hidden_size": 20,
  "num_hidden_layers": 2,
  "num_attention_heads": 4,
  "num_key_value_heads": 2,
  "head_dim": 6,
  "intermediate_size": 13,
  "vocab_size": VOCAB,
  "max_position_embeddings": 32,
  "rms_norm_eps": 1e-5,
  "bos_token_id": 1,
  "eos_token_id": 2,
  "pad_token_id": 0,
}
# Where a head's width follows from the others.
_FOLLOWS = {**_PLAIN, "hidden_size": 24, "head_dim": None}
_EXPERTS = {"num_experts": 5, "num_experts_per_tok": 2}
_LOCAL = {"num_local_experts": 5, "num_experts_per_tok": 2}


def _rope(kind, **parameters):
  return {
    "rope_parameters": {"rope_type": kind, "rope_theta": 50.0, **parameters}
  }


def _case(model_type, base, **changes):
  fields = {k: v for k, v in base.items() if v is not None}
  return model_type, {**_rope("default"), **fields, **changes}


CASES = {
  "mixtral": _case("mixtral", _PLAIN, **_LOCAL, sliding_window=5),
  "olmoe": _case(
    "olmoe",
    _FOLLOWS,
    **_EXPERTS,
    clip_qkv=0.7,
    attention_bias=True,
    norm_topk_prob=False,
  ),
  "flex_olmo": _case(
    "flex_olmo", _PLAIN, **_EXPERTS, norm_topk_prob=True, attention_bias=True
  ),
  "qwen2_moe": _case(
    "qwen2_moe",
    _PLAIN,
    **_EXPERTS,
    num_hidden_layers=3,
    moe_intermediate_size=7,
    shared_expert_intermediate_size=9,
    mlp_only_layers=[1],
    use_sliding_window=True,
    sliding_window=5,
    max_window_layers=2,
    norm_topk_prob=False,
  ),
  "qwen3_moe": _case(
    "qwen3_moe",
    _PLAIN,
    **_EXPERTS,
    moe_intermediate_size=7,
    decoder_sparse_step=2,
    norm_topk_prob=True,
    attention_bias=True,
  ),
  "gpt_oss": _case(
    "gpt_oss",
    _PLAIN,
    **_LOCAL,
    sliding_window=5,
    **_rope(
      "yarn",
      factor=4.0,
      beta_fast=8.0,
      beta_slow=1.0,
      truncate=False,
      original_max_position_embeddings=8,
    ),
  ),
  "granite": _case(
    "granite",
    _FOLLOWS,
    embedding_multiplier=3.0,
    attention_multiplier=0.3,
    residual_multiplier=0.6,
    logits_scaling=2.5,
    mlp_bias=True,
  ),
  "granitemoe": _case(
    "granitemoe",
    _FOLLOWS,
    **_LOCAL,
    embedding_multiplier=3.0,
    attention_multiplier=0.3,
    residual_multiplier=0.6,
    logits_scaling=2.5,
    attention_bias=True,
    tie_word_embeddings=True,
  ),
  "granitemoeshared": _case(
    "granitemoeshared",
    _FOLLOWS,
    **_LOCAL,
    shared_intermediate_size=9,
    residual_multiplier=0.6,
    attention_multiplier=0.3,
  ),
  "ernie4_5_moe": _case(
    "ernie4_5_moe",
    _PLAIN,
    num_hidden_layers=4,
    moe_num_experts=5,
    moe_k=2,
    moe_intermediate_size=7,
    moe_num_shared_experts=2,
    moe_layer_start_index=1,
    moe_layer_end_index=3,
    moe_layer_interval=2,
    use_bias=True,
    tie_word_embeddings=False,
  ),
  "glm4_moe": _case(
    "glm4_moe",
    {**_PLAIN, "head_dim": 8},
    n_routed_experts=6,
    num_experts_per_tok=2,
    moe_intermediate_size=7,
    n_shared_experts=2,
    n_group=3,
    topk_group=2,
    first_k_dense_replace=1,
    routed_scaling_factor=1.7,
    norm_topk_prob=True,
    use_qk_norm=True,
    attention_bias=True,
    **_rope("default", partial_rotary_factor=0.5),
  ),
  "dots1": _case(
    "dots1",
    _PLAIN,
    n_routed_experts=5,
    num_experts_per_tok=2,
    moe_intermediate_size=7,
    n_shared_experts=1,
    first_k_dense_replace=1,
    routed_scaling_factor=2.5,
    norm_topk_prob=False,
    sliding_window=5,
    max_window_layers=1,
  ),
  "minimax_m2": _case("minimax_m2", _PLAIN, **_LOCAL, rotary_dim=4),
  "phimoe": _case(
    "phimoe",
    _FOLLOWS,
    **_LOCAL,
    router_jitter_noise=0.2,
    attention_bias=True,
    lm_head_bias=True,
    **_rope(
      "longrope",
      short_factor=[1.0, 1.5, 2.0],
      long_factor=[1.0, 3.0, 9.0],
      short_mscale=1.2,
      long_mscale=1.4,
      original_max_position_embeddings=16,
    ),
  ),
  "llama": _case(
    "llama",
    {**_PLAIN, "hidden_size": 24},
    attention_bias=True,
    mlp_bias=True,
    tie_word_embeddings=True,
    **_rope(
      "llama3",
      factor=4.0,
      low_freq_factor=1.0,
      high_freq_factor=3.0,
      original_max_position_embeddings=16,
    ),
  ),
  "llama_dynamic": _case(
    "llama",
    {**_PLAIN, "hidden_size": 24, "max_position_embeddings": 8},
    **_rope("dynamic", factor=3.0),
  ),
  "mistral": _case(
    "mistral", _PLAIN, sliding_window=5, **_rope("linear", factor=2.0)
  ),
  "qwen3": _case(
    "qwen3",
    _PLAIN,
    use_sliding_window=True,
    sliding_window=5,
    max_window_layers=1,
    **_rope("yarn", factor=4.0, original_max_position_embeddings=8),
  ),
  "olmo2": _case("olmo2", _PLAIN, attention_bias=False),
}
