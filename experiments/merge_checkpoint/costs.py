"""Bytes, parameters and operations of a checkpoint's model."""

import math
from typing import Any

import numpy as np

from experiments.common import readme_block
from tanbr_jax import models
from tanbr_jax.models.huggingface import leaves, mapping, tensor_file
from tanbr_jax.models.huggingface.families import REGISTRY


def costs(model: models.Decoder) -> dict[str, int]:
  """What a model with an origin costs.

  Args:
    model: of `from_pretrained`, or the dense form that is to be written.

  Returns:
    "bytes" of its tensors, its "parameters", and "flops_per_token": two for
    each parameter of the matrices that a token is multiplied with, K of E
    experts. Attention to earlier tokens, which grows with them, is left out.
  """
  config, origin = model.config, model.origin
  shapes, _ = leaves.shapes_of(model)
  flops = 0.0
  for name, leaf in shapes.items():
    is_table = name == "embedding"
    if len(leaf.shape) < 2 or (is_table and not config.tied):
      continue
    share = 1.0
    if leaves.is_expert(name, model):
      if len(leaf.shape) < 3:  # biases
        continue
      share = config.num_selected / config.num_experts
    flops += 2 * share * math.prod(leaf.shape)
  tensors = mapping.tensor_shapes(
    REGISTRY[origin.family].pieces(config, origin.layout),
    {name: leaf.shape for name, leaf in shapes.items()},
  )
  num_bytes = sum(
    math.prod(tensors[one.key]) * tensor_file.DTYPES[one.dtype].itemsize
    for one in origin.tensors
  )
  return {
    "bytes": num_bytes,
    "parameters": sum(math.prod(leaf.shape) for leaf in shapes.values()),
    "flops_per_token": int(np.round(flops)),
  }


def table(before: dict[str, int], after: dict[str, int]) -> str:
  """Both models' costs and their ratio, as Markdown."""
  lines = [
    [
      name.replace("_", " "),
      f"{before[name]:,}",
      f"{after[name]:,}",
      f"{after[name] / before[name]:.3f}",
    ]
    for name in before
  ]
  return readme_block.table(["", "with experts", "merged", "ratio"], lines)


def as_record(before: dict[str, int], after: dict[str, int]) -> dict[str, Any]:
  """Both models' costs under flat keys."""
  found = {f"before/{name}": value for name, value in before.items()}
  return found | {f"after/{name}": value for name, value in after.items()}
