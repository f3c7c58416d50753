"""The study on the byte model at the size of one GPU.

  python -m experiments.wireless --config=configs/wireless/gpu.py \
    --workdir=runs/wireless_gpu

With `--workdir=runs/wireless_gpu`.
"""

import ml_collections

from configs.pretrain import gpu as pretrain_gpu
from configs.wireless import quick


def get_config() -> ml_collections.ConfigDict:
  """Six layers of eight experts, two a token; decisions are on the host."""
  config = quick.get_config()
  config.pretrain = pretrain_gpu.get_config().pretrain
  # States of 384 values: bandwidth in proportion.
  config.radio.bandwidth_hz = 310e3 * 384 / 64
  config.sweep.tokens = 64
  config.sweep.windows = 2
  config.sweep.bandwidth_factors = (0.25, 0.5, 1.0)
  config.sweep.deadline_factors = (0.5, 1.0, 2.0)
  config.slots.num_seeds = 10
  return config
