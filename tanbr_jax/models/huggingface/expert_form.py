"""The model of experts that a dense checkpoint is upcycled to: Mixtral's form.

Letters: E experts, F hidden width, K experts per token.
"""

import json

from tanbr_jax.models.decoder import Decoder
from tanbr_jax.models.huggingface import dense_keys, dense_writing

# Families that are Mixtral but for their FFNs, unless they have biases.
_DENSE = ("llama", "mistral")


def expert_form(
  model: Decoder, *, num_experts: int, num_selected: int, parts: int = 1
) -> Decoder:
  """The model whose parameters `upcycle` makes of a dense model's.

      dense, dense_params = models.from_pretrained(models.find_smollm2())
      model = models.expert_form(dense, num_experts=8, num_selected=2)
      params = models.upcycle(jax.random.key(0), model, dense_params)
      models.save_pretrained(model, params, "smollm2_x8")

  It can be written, and transformers reads it as Mixtral, its head tied if the
  dense model's is.

  Args:
    model: of `from_pretrained`, a Llama or a Mistral.
    num_experts: E, a multiple of `parts`.
    num_selected: K, at most E and a multiple of `parts`.
    parts: experts that one FFN is cut into, each of F / parts neurons.

  Raises:
    ValueError: if the model has no such origin or biases, or a number does not
      fit.
  """
  origin, width = model.origin, model.config.expert_dim
  if origin is None or origin.family not in _DENSE:
    raise ValueError(
      f"the model must be read from a checkpoint of {list(_DENSE)}, got "
      f"{None if origin is None else origin.family!r}"
    )
  numbers = (num_experts, num_selected, width)
  if parts < 1 or any(n < 1 or n % parts for n in numbers):
    raise ValueError(
      "parts must divide num_experts, num_selected and the FFN's width, got "
      f"parts={parts}, num_experts={num_experts}, num_selected={num_selected}, "
      f"width={width}"
    )
  if model.config.has_expert_bias or model.config.attention.has_bias:
    raise ValueError("mixtral has no biases, which the model has")
  keys = dense_keys.sister("mixtral", "MixtralForCausalLM", has_windows=True)
  raw = keys(json.loads(origin.config), model.config, width // parts)
  for name in ("attention_bias", "mlp_bias", "pretraining_tp"):
    raw.pop(name, None)
  raw |= {"num_local_experts": num_experts, "num_experts_per_tok": num_selected}
  return dense_writing.settle(model, raw)
