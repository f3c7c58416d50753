"""The mergeable byte model at the size of one GPU.

  python -m experiments.pretrain --config=configs/pretrain/gpu.py \
    --workdir=runs/pretrain_gpu

Run time: about two minutes of training on one H100.
Expected (one seed): best weights per task .712 next-byte accuracy, 1.022 nats;
best static weights .686, 1.126; routed top-2 .709, 1.037.
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
