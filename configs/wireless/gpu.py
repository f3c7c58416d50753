"""The study on the byte model at the size of one GPU.

python -m experiments.wireless --config=configs/wireless/gpu.py
"""

import ml_collections

from configs.pretrain import gpu as pretrain_gpu
from configs.wireless import quick


def get_config() -> ml_collections.ConfigDict:
  """Six layers of eight experts, two a token; decisions are on the host."""
  config = quick.get_config()
  config.pretrain = pretrain_gpu.get_config().pretrain
  # States of 384 values: bandwidth in proportion. A prefill is 256 tokens: four
  # times the deadline.
  config.radio.bandwidth_hz = 480e3
  config.radio.deadline_s = 0.08
  config.radio.load_s = 0.0296
  config.sweep.windows = 2
  return config
