"""Every merging method on a byte model of one GPU, E = 8, K = 2.

  python -m experiments.compress --config=configs/compress/merging_gpu.py \
    --workdir=runs/merging_gpu

With fine experts, E = 32, K = 4:

  python -m experiments.compress --config=configs/compress/gpu.py \
    --config.stages=merging --config.calibration_windows=20 \
    --workdir=runs/merging_fine
"""

import ml_collections

from configs.compress import gpu


def get_config() -> ml_collections.ConfigDict:
  """The config; see configs/compress/quick.py."""
  config = gpu.get_config()
  config.pretrain.update(num_experts=8, num_selected=2, expert_dim=1024)
  config.stages = "merging"
  config.calibration_windows = 20
  return config
