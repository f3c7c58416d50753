"""What the config.json of a merged model says, by kind of family.

A merged model is written where transformers computes exactly the same: as a
family without experts that is the same otherwise, as the family itself with
dense layers only, or as the family with one expert, whose gate is 1.
"""

from collections.abc import Callable
from typing import Any

from tanbr_jax.models.decoder_config import DecoderConfig

Raw = dict[str, Any]
# (config.json of the model with experts, its shape once merged, the hidden
# width of every FFN) -> config.json of the dense form.
DenseKeys = Callable[[Raw, DecoderConfig, int], Raw]

# Keys that mean nothing without experts, or that `sister` writes anew.
_OF_EXPERTS = frozenset(
  (
    "auto_map",
    "decoder_sparse_step",
    "mlp_only_layers",
    "moe_intermediate_size",
    "norm_topk_prob",
    "num_experts",
    "num_experts_per_tok",
    "num_local_experts",
    "output_router_logits",
    "router_aux_loss_coef",
    "router_jitter_noise",
    "router_z_loss_coef",
    "shared_intermediate_size",
    "sliding_window",
  )
)


def sister(
  model_type: str, architecture: str, *, has_windows: bool = False
) -> DenseKeys:
  """The keys of another family, which has no experts.

  Defaults differ between families: what the other one may take another default
  for is spelt out.

  Args:
    model_type: the other family.
    architecture: transformers' name of its class.
    has_windows: whether it may have sliding windows.
  """

  def keys(raw: Raw, config: DecoderConfig, width: int) -> Raw:
    new = {name: raw[name] for name in raw if name not in _OF_EXPERTS}
    new |= {
      "model_type": model_type,
      "architectures": [architecture],
      "intermediate_size": width,
      "head_dim": config.head_dim,
      "num_key_value_heads": config.num_kv_heads,
      "tie_word_embeddings": config.tied,
    }
    if has_windows:
      new["sliding_window"] = config.attention.window
    theta = {"rope_theta": config.rotary.theta}
    if isinstance(new.get("rope_parameters"), dict):
      new["rope_parameters"] = {**theta, **new["rope_parameters"]}
      return new
    return {**theta, **new}

  return keys


def one_expert(count: str, *spellings: str) -> DenseKeys:
  """The family's own keys for one expert, whose gate is 1.

  Args:
    count: the key of the number of experts.
    *spellings: other keys of the same meaning.
  """

  def keys(raw: Raw, config: DecoderConfig, width: int) -> Raw:
    del config
    new = {
      **raw,
      count: 1,
      "num_experts_per_tok": 1,
      "intermediate_size": width,
    }
    others = (*spellings, "experts_per_token")
    return {name: new[name] for name in new if name not in others}

  return keys


def dense_layers(**changes: Any) -> DenseKeys:
  """The family's own keys for a model all of whose layers are dense.

  Args:
    **changes: keys that make them so; None stands for the number of layers.
  """

  def keys(raw: Raw, config: DecoderConfig, width: int) -> Raw:
    new = {
      name: config.num_layers if value is None else value
      for name, value in changes.items()
    }
    return {**raw, **new, "intermediate_size": width}

  return keys
