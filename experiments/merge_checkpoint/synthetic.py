"""Writes a checkpoint of Mixtral's shape and any size, with random weights.

  python -m experiments.merge_checkpoint.synthetic --output=/tmp/mixtral \
    --gigabytes=8

For measuring how long reading and merging take, and in how much memory. One
tensor is in memory at a time; a file holds one layer. Run time: that of
writing.
"""

import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import ml_dtypes
import numpy as np
from absl import app, flags

from experiments.common import launch
from tanbr_jax import models
from tanbr_jax.models.huggingface import folder as folders
from tanbr_jax.models.huggingface import leaves, mapping, tensor_file
from tanbr_jax.models.huggingface.config_keys import ConfigKeys
from tanbr_jax.models.huggingface.families import REGISTRY
from tanbr_jax.models.huggingface.tensor_file import Tensor
from tanbr_jax.storage import atomic

_DTYPE = np.dtype(ml_dtypes.bfloat16)
_DRAWN = 1 << 22  # values that are drawn; larger tensors repeat them


def write(path: str | Path, *, gigabytes: float, model_dim: int = 4096) -> int:
  """Writes the folder.

  Args:
    path: a new or an empty folder.
    gigabytes: as many layers as fit, one at least.
    model_dim: D, a multiple of 512; Mixtral 8x7B's is 4096, and all other sizes
      follow in its proportions.

  Returns:
    The number of bytes of all tensors.

  Raises:
    ValueError: if a number is out of range, or there is something at the path.
  """
  if not 0 < gigabytes < math.inf or model_dim < 512 or model_dim % 512:
    raise ValueError(
      "gigabytes must be positive and model_dim a multiple of 512, got "
      f"gigabytes={gigabytes}, model_dim={model_dim}"
    )
  one = sum(tensor.nbytes for tensor in _tensors(model_dim, 1))
  two = sum(tensor.nbytes for tensor in _tensors(model_dim, 2))
  num_layers = max(1, int((gigabytes * 1e9 - one) // (two - one)) + 1)
  tensors = _tensors(model_dim, num_layers)
  with atomic.new_folder(path) as folder:
    text = json.dumps(_config(model_dim, num_layers), indent=2) + "\n"
    atomic.write_text(folder / folders.CONFIG, text)
    places = {tensor.name: _file(tensor.name) for tensor in tensors}
    for file in sorted(set(places.values())):
      own = [tensor for tensor in tensors if places[tensor.name] == file]
      atomic.write(
        folder / file,
        lambda out, own=own: tensor_file.write(out, own, _arrays(own)),
      )
    size = sum(tensor.nbytes for tensor in tensors)
    index = {"metadata": {"total_size": size}, "weight_map": places}
    atomic.write_text(folder / folders.INDEX, json.dumps(index) + "\n")
  return size


def _config(model_dim: int, num_layers: int) -> dict[str, object]:
  heads = model_dim // 128
  return {
    "architectures": ["MixtralForCausalLM"],
    "model_type": "mixtral",
    "dtype": "bfloat16",
    "hidden_size": model_dim,
    "intermediate_size": model_dim * 7 // 2,
    "num_hidden_layers": num_layers,
    "num_attention_heads": heads,
    "num_key_value_heads": heads // 4,
    "num_local_experts": 8,
    "num_experts_per_tok": 2,
    "vocab_size": 32000,
    "max_position_embeddings": 32768,
    "rms_norm_eps": 1e-5,
    "rope_theta": 1e6,
    "sliding_window": None,
    "tie_word_embeddings": False,
  }


def _tensors(model_dim: int, num_layers: int) -> list[Tensor]:
  family = REGISTRY["mixtral"]
  keys = ConfigKeys(_config(model_dim, num_layers), folders.CONFIG)
  config = family.config(keys)
  shapes, _ = leaves.shapes_of(models.Decoder(config))
  named = {name: leaf.shape for name, leaf in shapes.items()}
  found = mapping.tensor_shapes(family.pieces(config, "by_expert"), named)
  return [Tensor(key, _DTYPE, shape) for key, shape in found.items()]


def _file(key: str) -> str:
  parts = key.split(".")
  layer = int(parts[2]) + 1 if parts[1] == "layers" else 0
  return f"model-{layer:05}.safetensors"


def _arrays(tensors: list[Tensor]) -> Iterator[np.ndarray]:
  draws = np.random.default_rng(0).standard_normal(_DRAWN, np.float32)
  for tensor in tensors:
    if len(tensor.shape) == 1:
      yield np.ones(tensor.shape, _DTYPE)
      continue
    scale = np.float32(tensor.shape[-1] ** -0.5)
    yield np.resize((draws * scale).astype(_DTYPE), tensor.shape)


def main(argv: Sequence[str]) -> None:
  with launch.guarded():
    if len(argv) > 1:
      raise ValueError(f"unknown arguments {argv[1:]}")
    size = write(
      flags.FLAGS.output,
      gigabytes=flags.FLAGS.gigabytes,
      model_dim=flags.FLAGS.model_dim,
    )
    print(f"{size:,} bytes in {flags.FLAGS.output}")


if __name__ == "__main__":
  flags.DEFINE_string("output", None, "A new folder.", required=True)
  flags.DEFINE_float("gigabytes", 8.0, "Size of all tensors at most.")
  flags.DEFINE_integer("model_dim", 4096, "D, a multiple of 512.")
  app.run(main)
