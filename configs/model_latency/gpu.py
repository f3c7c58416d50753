"""Latency and memory of whole models at their true sizes, on one GPU.

  python -m experiments.latency --config=configs/model_latency/gpu.py \
    --workdir=runs/model_latency

One of them: `--config.models=olmoe_1b_7b --workdir=runs/model_latency/olmoe`.
T5-base with two experts a token: `--config.changes.t5_base_x8.num_selected=2`.
"""

import ml_collections

from configs.model_latency import quick


def get_config() -> ml_collections.ConfigDict:
  """The paper's batch of 128 x 128 for all models."""
  config = quick.get_config()
  config.models = "t5_base_x8,olmoe_1b_7b,mixtral_8x7b"
  # Eight of 32 layers, 22.5 GB of experts, fit on a GPU with 80 GB.
  config.changes = ml_collections.ConfigDict(
    {"mixtral_8x7b": {"num_layers": 8}}
  )
  config.dtype = "bfloat16"
  config.batch_size = 128
  config.length = 128
  config.decode_batch_sizes = (1, 16, 128)
  config.decode_steps = 32
  config.repeats = 20
  config.max_seconds = 60.0
  config.min_ms = 20.0
  config.ceiling_bytes = 1_000_000_000
  config.matmul_size = 8192
  return config
