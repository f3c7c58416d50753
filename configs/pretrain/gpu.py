"""The mergeable byte model at the size of one GPU.

  python -m experiments.pretrain --config=configs/pretrain/gpu.py

Run time: to be measured.
Expected: to be measured.
"""

import ml_collections

from configs.pretrain import quick


def get_config() -> ml_collections.ConfigDict:
  """The config; see `pretraining.PretrainConfig` for most fields."""
  config = quick.get_config()
  config.pretrain.update(
    num_layers=6,
    model_dim=384,
    num_heads=6,
    head_dim=64,
    expert_dim=1024,
    context=256,
    dtype="bfloat16",
    num_steps=900,
    dense_steps=100,
    batch_size=128,
    learning_rate=1e-3,
    table="learnt",
  )
  config.validation_windows = 64
  config.test_windows = 128
  config.search_steps = 50
  return config
