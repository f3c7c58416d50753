"""What the config.json of all families have in common."""

import math
from typing import Any

from tanbr_jax.models import decoder_rotary
from tanbr_jax.models.decoder_options import AttentionOptions
from tanbr_jax.models.decoder_rotary import RotaryOptions
from tanbr_jax.models.huggingface.config_keys import ConfigKeys

ACTIVATIONS = {
  "silu": "silu",
  "swish": "silu",
  "gelu": "gelu",
  "gelu_new": "gelu_tanh",
  "gelu_pytorch_tanh": "gelu_tanh",
  "relu": "relu",
  "relu2": "relu2",
}
# The parameters of each kind of scaling, and what all kinds share.
_ROTARY_KEYS = {
  "default": {"factor", "original_max_position_embeddings"},
  "linear": {"factor", "original_max_position_embeddings"},
  "dynamic": {"factor", "original_max_position_embeddings"},
  "llama3": {
    "factor",
    "low_freq_factor",
    "high_freq_factor",
    "original_max_position_embeddings",
  },
  "yarn": {
    "factor",
    "original_max_position_embeddings",
    "attention_factor",
    "beta_fast",
    "beta_slow",
    "mscale",
    "mscale_all_dim",
    "truncate",
  },
  "longrope": {
    "factor",
    "original_max_position_embeddings",
    "attention_factor",
    "short_factor",
    "long_factor",
    "short_mscale",
    "long_mscale",
  },
}
_SHARED_KEYS = {"type", "rope_type", "rope_theta", "partial_rotary_factor"}


def read(keys: ConfigKeys, **rotary: Any) -> dict[str, Any]:
  """Returns the fields of `DecoderConfig` that all families write alike.

  Those of experts are not among them, and `attention` is plain.

  Args:
    keys: of the config.json.
    **rotary: for `read_rotary`.

  Raises:
    ValueError: if a size is missing, or something is not understood.
  """
  activation = keys.get("hidden_act", "silu")
  if activation not in ACTIVATIONS:
    raise keys.error(
      f"hidden_act must be one of {list(ACTIVATIONS)}, got "
      f"hidden_act={activation!r}"
    )
  heads, width = keys.size("num_attention_heads"), keys.size("hidden_size")
  head_dim = keys.get("head_dim") or width // heads
  options = read_rotary(keys, head_dim, **rotary)
  context = keys.size("max_position_embeddings")
  if isinstance(
    options.scaling,
    (decoder_rotary.LinearScaling, decoder_rotary.DynamicScaling),
  ):
    # The other kinds write the longer context.
    context = int(context * options.scaling.factor)
  return {
    "num_layers": keys.size("num_hidden_layers"),
    "model_dim": width,
    "num_heads": heads,
    "num_kv_heads": keys.get("num_key_value_heads") or heads,
    "head_dim": head_dim,
    "vocab_size": keys.size("vocab_size"),
    "activation": ACTIVATIONS[activation],
    "rotary": options,
    "norm_eps": keys.number("rms_norm_eps"),
    "tied": keys.get("tie_word_embeddings", False),
    "context": context,
  }


def dense(keys: ConfigKeys) -> dict[str, Any]:
  """The fields of a model without experts."""
  return {
    "expert_dim": keys.size("intermediate_size"),
    "num_experts": None,
    "num_selected": 1,
  }


def attention(
  keys: ConfigKeys, *, bias: bool = False, output_bias: bool | None = None
) -> dict[str, Any]:
  """`has_bias` and `has_output_bias` of the key `attention_bias`.

  Args:
    keys: of the config.json.
    bias: the default of the key.
    output_bias: whether the output has one; None for as the others.
  """
  has_bias = keys.get("attention_bias", bias)
  is_out = has_bias if output_bias is None else output_bias
  return {"has_bias": has_bias, "has_output_bias": is_out}


def windows(
  keys: ConfigKeys,
  num_layers: int,
  layer_types: list[str] | None = None,
  *,
  default: int | None = None,
) -> dict[str, Any]:
  """`window` and `full_layers` of the keys `sliding_window`, `layer_types`.

  Args:
    keys: of the config.json.
    num_layers: of the model.
    layer_types: the default of the key of that name; None if the family has
      no such key and one window for all layers.
    default: of a `sliding_window` that is absent; null is none.
  """
  window = keys.get("sliding_window")
  if not keys.has("sliding_window"):
    window = default
  if layer_types is None:
    return {"window": window or None}
  types = keys.get("layer_types") or layer_types
  known = ("full_attention", "sliding_attention")
  if len(types) != num_layers or not set(types) <= set(known):
    raise keys.error(
      f"layer_types must be {num_layers} of {list(known)}, got "
      f"layer_types={types}"
    )
  full = tuple(i for i, kind in enumerate(types) if kind == known[0])
  if len(full) == num_layers:
    return {}
  if not window:
    raise keys.error(
      f"layer_types needs a sliding_window, got sliding_window={window!r}"
    )
  return {"window": window, "full_layers": full}


def with_attention(fields: dict[str, Any], **options: Any) -> dict[str, Any]:
  """The fields with these options of attention."""
  return {**fields, "attention": AttentionOptions(**options)}


def read_rotary(
  keys: ConfigKeys,
  head_dim: int,
  *,
  theta: float = 10_000.0,
  partial: float = 1.0,
  is_interleaved: bool = False,
) -> RotaryOptions:
  """Returns the rotary options of either spelling.

  Newer files have `rope_parameters`, older ones `rope_scaling` beside
  `rope_theta`.

  Args:
    keys: of the config.json.
    head_dim: W.
    theta: the default of `rope_theta`.
    partial: the default of `partial_rotary_factor`.
    is_interleaved: whether the family turns neighbours.

  Raises:
    ValueError: if the kind or one of its parameters is not understood.
  """
  given = keys.get("rope_parameters", None, "rope_scaling") or {}
  if not isinstance(given, dict):
    raise keys.error(f"rope_parameters must be an object, got {given!r}")
  kind = given.get("rope_type") or given.get("type") or "default"
  kind = {"su": "longrope"}.get(kind, kind)
  if kind not in _ROTARY_KEYS:
    raise keys.error(
      f"rope_type must be one of {list(_ROTARY_KEYS)}, got rope_type={kind!r}"
    )
  if rest := set(given) - _ROTARY_KEYS[kind] - _SHARED_KEYS:
    raise keys.error(
      f"rope_parameters of {kind!r} has a key that is not understood: "
      f"{min(rest)!r}"
    )
  theta = keys.get("rope_theta", theta)
  rotary_dim = keys.get("rotary_dim")
  partial = keys.get("partial_rotary_factor", partial)
  if rotary_dim is not None:
    partial = rotary_dim / head_dim
  partial = given.get("partial_rotary_factor", partial)
  dim = int(head_dim * partial)
  return RotaryOptions(
    theta=float(given.get("rope_theta") or theta),
    dim=None if dim == head_dim else dim,
    is_interleaved=is_interleaved,
    scaling=_scaling(keys, kind, given, dim),
  )


def _scaling(
  keys: ConfigKeys, kind: str, given: dict[str, Any], dim: int
) -> decoder_rotary.Scaling | None:
  longest = keys.size("max_position_embeddings")
  context = keys.get("original_max_position_embeddings") or given.get(
    "original_max_position_embeddings", longest
  )

  def number(name: str, default: float | None = None) -> float:
    value = given.get(name, default)
    if type(value) not in (int, float) or not math.isfinite(value):
      raise keys.error(
        f"rope_parameters.{name} must be a number, got {value!r}"
      )
    return float(value)

  if kind == "default":
    return None
  if kind == "linear":
    return decoder_rotary.LinearScaling(number("factor"))
  if kind == "dynamic":
    return decoder_rotary.DynamicScaling(number("factor"), longest)
  if kind == "llama3":
    return decoder_rotary.Llama3Scaling(
      number("factor"),
      number("low_freq_factor"),
      number("high_freq_factor"),
      context,
    )
  if given.get("factor") is None:
    given = {**given, "factor": longest / context}
  factor, amplitude = number("factor"), given.get("attention_factor")
  if kind == "yarn":
    if (
      amplitude is None and given.get("mscale") and given.get("mscale_all_dim")
    ):
      amplitude = _yarn(factor, number("mscale"))
      amplitude /= _yarn(factor, number("mscale_all_dim"))
    return decoder_rotary.YarnScaling(
      factor,
      context,
      amplitude=None if amplitude is None else float(amplitude),
      fast=float(given.get("beta_fast") or 32.0),
      slow=float(given.get("beta_slow") or 1.0),
      is_truncated=bool(given.get("truncate", True)),
    )
  if amplitude is None:
    stretch = math.log(max(factor, 1.0)) / math.log(context)
    amplitude = math.sqrt(1 + stretch)
  factors = [given.get("short_factor"), given.get("long_factor")]
  if any(not isinstance(f, list) or len(f) != dim // 2 for f in factors):
    raise keys.error(
      f"rope_parameters needs {dim // 2} numbers in short_factor and "
      f"long_factor, got {factors}"
    )
  return decoder_rotary.LongScaling(
    tuple(factors[0]),
    tuple(factors[1]),
    context,
    number("short_mscale", amplitude),
    number("long_mscale", amplitude),
  )


def _yarn(factor: float, scale: float) -> float:
  return 0.1 * scale * math.log(max(factor, 1.0)) + 1.0
