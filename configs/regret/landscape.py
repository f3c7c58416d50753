"""Rewards over the simplex of a real model's merges.

  python -m experiments.sample_landscape --config=configs/regret/landscape.py \
    --workdir=runs/landscape/bytes_8
  python -m experiments.fit_landscape --run=runs/landscape --write

Run time: about two minutes of one CPU core once the model of
configs/pretrain/quick.py is in the cache.
Expected: the table of experiments/regret/README.md.

A folder's name is that of its table, and ends with the number of experts. Of a
checkpoint, two minutes on one H200 that other processes use:

  python -m experiments.sample_landscape \
    --config=configs/regret/landscape.py:gpu --config.num_points=600 \
    --config.model.path=runs/upcycle_smollm2/domains_0 \
    --workdir=runs/landscape/smollm2_8

Not run: the byte model of one GPU with 2,000 points, and one of 32 experts:

  python -m experiments.sample_landscape \
    --config=configs/regret/landscape.py:gpu --workdir=runs/landscape/gpu_8
  python -m experiments.sample_landscape \
    --config=configs/regret/landscape.py:gpu --workdir=runs/landscape/gpu_32 \
    --config.pretrain.num_experts=32 --config.pretrain.expert_dim=256
"""

import ml_collections

from configs.online import smollm2
from configs.pretrain import gpu, quick


def get_config(size: str = "quick") -> ml_collections.ConfigDict:
  """A byte model, or a checkpoint's folder as `model.path`.

  Args:
    size: "quick", the byte model of two CPU cores, or "gpu".
  """
  config = ml_collections.ConfigDict()
  is_quick = size == "quick"
  config.pretrain = (quick if is_quick else gpu).get_config().pretrain
  config.model = smollm2.get_config().model
  config.model.path = ""
  config.model.context = 128
  config.cache_dir = ""
  config.num_points = 300 if is_quick else 2000
  # Of each task.
  config.num_windows = 8 if is_quick else 32
  config.seed = 0
  return config
