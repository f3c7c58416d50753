"""Transformers' own MoE blocks with random weights, as peers.

Its blocks run their experts by one of three names: "eager" is a loop over the
experts that waits for the device, "batched_mm" gathers each pair's weights,
"grouped_mm" is PyTorch's grouped product.
"""

import importlib
from collections.abc import Sequence
from typing import Any

from experiments.kernels import inputs as kernel_inputs
from experiments.kernels.shapes import ITEM, Shape
from experiments.kernels.torch_block import Weights
from experiments.kernels.torch_queue import TorchQueue, attempt

IMPLEMENTATIONS = ("eager", "batched_mm", "grouped_mm")
# A pair's weights are gathered by "batched_mm": more than this many bytes of
# them are not tried.
MOST_GATHERED = 16e9
# Model type -> class of the config and of the block.
_CLASSES = {
  "mixtral": ("MixtralConfig", "MixtralSparseMoeBlock"),
  "olmoe": ("OlmoeConfig", "OlmoeSparseMoeBlock"),
  "qwen3_moe": ("Qwen3MoeConfig", "Qwen3MoeSparseMoeBlock"),
  "deepseek_v2": ("DeepseekV2Config", "DeepseekV2Moe"),
  "switch_transformers": (
    "SwitchTransformersConfig",
    "SwitchTransformersSparseMLP",
  ),
}


def queues(
  shape: Shape,
  weights: Sequence[Weights],
  tokens: Sequence[Any],
  *,
  pool: Any = None,
) -> dict[str, TorchQueue | Exception]:
  """The model's block with each implementation; empty without such a model."""
  if shape.model_type not in _CLASSES:
    return {}
  found: dict[str, TorchQueue | Exception] = {}
  for name in implementations(shape):
    key = f"transformers/{name}"
    gathered = tokens[0].shape[0] * shape.num_selected * shape.expert_parameters
    if name == "batched_mm" and ITEM * gathered > MOST_GATHERED:
      found[key] = MemoryError(f"would gather {ITEM * gathered / 1e9:.0f} GB")
      continue
    try:
      blocks = [make_block(shape, w, implementation=name) for w in weights]
    except Exception as error:  # An older release, or none.
      found[key] = error
      continue
    inputs = kernel_inputs.zipped(blocks, [x[None] for x in tokens])
    found[key] = attempt(
      lambda block, x: block(x),
      inputs,
      can_capture=name != "eager",
      pool=pool,
    )
  return found


def implementations(shape: Shape) -> Sequence[str]:
  """Names that the model's block knows; Switch has its loop alone."""
  if shape.model_type == "switch_transformers":
    return IMPLEMENTATIONS[:1]
  return IMPLEMENTATIONS


def make_block(shape: Shape, weights: Weights, *, implementation: str) -> Any:
  """The model's block, with these weights and not a copy of them.

  Args:
    shape: of the block.
    weights: [E, 2 F, D] and [E, D, F], which is transformers' own layout.
    implementation: of `IMPLEMENTATIONS`.

  Raises:
    ImportError: if transformers is not installed or has no such block.
  """
  import torch

  config_name, block_name = _CLASSES[shape.model_type]
  package = f"transformers.models.{shape.model_type}"
  config_module = importlib.import_module(
    f"{package}.configuration_{shape.model_type}"
  )
  module = importlib.import_module(f"{package}.modeling_{shape.model_type}")
  config = getattr(config_module, config_name)(**_options(shape))
  config._experts_implementation = implementation
  with torch.device("meta"):
    block = getattr(module, block_name)(config)
  values = _parameters(shape, weights)
  for name, _ in list(block.named_parameters()):
    _set(block, name, values[name])
  return block.eval()


def _options(shape: Shape) -> dict[str, Any]:
  if shape.model_type == "switch_transformers":
    return {
      "d_model": shape.model_dim,
      "d_ff": shape.expert_dim,
      "num_experts": shape.num_experts,
      "expert_capacity": 1 << 20,  # None is dropped, as in ours.
      "router_dtype": "bfloat16",
      "dense_act_fn": shape.activation,
    }
  options = {
    "hidden_size": shape.model_dim,
    "num_experts_per_tok": shape.num_selected,
    "hidden_act": shape.activation,
    "norm_topk_prob": shape.renormalise,
  }
  if shape.model_type in ("mixtral", "olmoe"):
    options["intermediate_size"] = shape.expert_dim
  else:
    options["moe_intermediate_size"] = shape.expert_dim
  experts = {"mixtral": "num_local_experts", "deepseek_v2": "n_routed_experts"}
  options[experts.get(shape.model_type, "num_experts")] = shape.num_experts
  if shape.model_type == "deepseek_v2":
    options |= {
      "n_shared_experts": shape.shared_dim // shape.expert_dim,
      "topk_method": "greedy",
      "routed_scaling_factor": 1.0,
      "num_attention_heads": 1,  # Unused, but must divide the width.
    }
  return options


def _parameters(shape: Shape, weights: Weights) -> dict[str, Any]:
  """Names of the block's parameters -> tensors."""
  found = {
    "gate.weight": weights.router,
    "experts.gate_up_proj": weights.up,
    "experts.down_proj": weights.down,
    "router.classifier.weight": weights.router,
  }
  for e in range(shape.num_experts if not shape.is_gated else 0):
    found[f"experts.expert_{e}.wi.weight"] = weights.up[e]
    found[f"experts.expert_{e}.wo.weight"] = weights.down[e]
  if weights.shared_up is not None:
    gate, up = weights.shared_up.chunk(2)
    found["shared_experts.gate_proj.weight"] = gate
    found["shared_experts.up_proj.weight"] = up
    found["shared_experts.down_proj.weight"] = weights.shared_down
  return found


def _set(block: Any, name: str, value: Any) -> None:
  import torch

  path, _, leaf = name.rpartition(".")
  parameter = torch.nn.Parameter(value, requires_grad=False)
  setattr(block.get_submodule(path), leaf, parameter)
