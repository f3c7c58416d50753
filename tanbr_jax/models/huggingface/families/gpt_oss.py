"""GPT-OSS (OpenAI, 2025): sinks, alternating windows, biases everywhere."""

from tanbr_jax.models.decoder_config import DecoderConfig
from tanbr_jax.models.decoder_options import RouterOptions
from tanbr_jax.models.huggingface import common_config, dense_keys, mapping
from tanbr_jax.models.huggingface.config_keys import ConfigKeys
from tanbr_jax.models.huggingface.family import Family
from tanbr_jax.models.huggingface.mapping import Part, Piece


def _config(keys: ConfigKeys) -> DecoderConfig:
  fields = common_config.read(keys, theta=150_000.0)
  if keys.get("rope_parameters", None, "rope_scaling") is None:
    raise keys.error("rope_parameters must say how positions are scaled")
  # `kernels.activate` has these two numbers.
  keys.only("swiglu_alpha", (1.702,))
  keys.only("swiglu_limit", (7, 7.0))
  keys.only("hidden_act", ("silu",))
  keys.get("initial_context_length")
  num_layers = fields["num_layers"]
  types = [
    "full_attention" if i % 2 else "sliding_attention"
    for i in range(num_layers)
  ]
  return DecoderConfig(
    **{
      **common_config.with_attention(
        fields,
        has_sinks=True,
        **common_config.attention(keys, bias=True),
        **common_config.windows(keys, num_layers, types, default=128),
      ),
      "activation": "clamped_swish",
    },
    expert_dim=keys.size("intermediate_size"),
    num_experts=keys.size("num_local_experts", "num_experts"),
    num_selected=keys.get("num_experts_per_tok", 4, "experts_per_token"),
    has_expert_bias=True,
    router=RouterOptions(scores="softmax_after", has_bias=True),
  )


def _feed_forward(
  config: DecoderConfig, layer: int, layout: str
) -> list[Piece]:
  del config, layout
  stack, key = mapping.stack(layer), f"model.layers.{layer}.mlp"
  pieces = [
    mapping.router(layer, f"{key}.router.weight"),
    mapping.router(layer, f"{key}.router.bias", "bias"),
    Piece(f"{stack}/w_out", f"{key}.experts.down_proj"),
    Piece(f"{stack}/b_out", f"{key}.experts.down_proj_bias"),
  ]
  # Columns of the gate and of what it is multiplied with take turns.
  for index, name in enumerate(("gate", "in")):
    part, joined = Part(index, 2, -1, True), f"{key}.experts.gate_up_proj"
    pieces.append(Piece(f"{stack}/w_{name}", joined, part=part))
    pieces.append(Piece(f"{stack}/b_{name}", f"{joined}_bias", part=part))
  return pieces


FAMILY = Family(
  "gpt_oss",
  _config,
  _feed_forward,
  ("fused",),
  dense_keys=dense_keys.one_expert("num_local_experts", "num_experts"),
)
