"""Rewards over the simplex of a real model's merges.

  python -m experiments.sample_landscape --config=configs/regret/landscape.py \
    --workdir=runs/landscape/bytes_8
  python -m experiments.sample_landscape --config=configs/regret/landscape.py \
    --config.pretrain.num_experts=32 --config.pretrain.expert_dim=256 \
    --workdir=runs/landscape/bytes_32
  python -m experiments.sample_landscape --config=configs/regret/landscape.py \
    --config.model.path=runs/upcycle_smollm2/domains_0 \
    --config.num_points=1000 --config.num_windows=16 \
    --workdir=runs/landscape/smollm2_8

Then `experiments.fit_landscape` makes the tables of the family `fitted`.
"""

import ml_collections

from configs.online import smollm2
from configs.pretrain import gpu


def get_config() -> ml_collections.ConfigDict:
  """The byte model of one GPU, or a checkpoint's folder as `model.path`."""
  config = ml_collections.ConfigDict()
  config.pretrain = gpu.get_config().pretrain
  config.model = smollm2.get_config().model
  config.model.path = ""
  config.model.context = 128
  config.cache_dir = ""
  config.num_points = 2000
  # Of each task.
  config.num_windows = 32
  config.seed = 0
  return config
