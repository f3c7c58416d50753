"""What of masks' training matters.

  python -m experiments.masking --config=configs/masking/ablations.py \
    --workdir=runs/masking_ablations

The 42M byte model of 32 experts, on one GPU; one seed.
"""

import ml_collections

from configs.masking import gpu


def get_config() -> ml_collections.ConfigDict:
  """The config; see configs/masking/quick.py."""
  config = gpu.get_config(",".join(("control", "beam_beta", *gpu.ABLATIONS)))
  config.num_seeds = 1
  config.free = ml_collections.ConfigDict()
  return config
