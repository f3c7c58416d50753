"""A routed byte model of many small experts: top-4 of 32, on one GPU.

  python -m experiments.pretrain --config=configs/pretrain/fine.py \
    --workdir=runs/pretrain_fine

Every step is one of the routed model, which is what masks and pruning start
from; its experts are not trained to be merged.
It takes 80 s on an H200, with XLA_FLAGS="--xla_gpu_autotune_level=0
--xla_gpu_enable_triton_gemm=false".
Expected: .741 next-byte accuracy routed, .939 nats (64 test windows a domain).
"""

import ml_collections

from configs.pretrain import gpu


def get_config() -> ml_collections.ConfigDict:
  """The config; see `pretraining.PretrainConfig` for most fields."""
  config = gpu.get_config()
  config.pretrain.update(
    num_experts=32,
    num_selected=4,
    expert_dim=256,
    num_steps=1500,
    routed_every=1,
    table="anchors",
    anchor_concentration=0.1,
  )
  return config
