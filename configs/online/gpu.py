"""The main job on one GPU.

  python -m experiments.online_merging --config=configs/online/gpu.py \
    --workdir=runs/online_gpu

Run time: about six minutes on one H100.
Expected: the table of experiments/online/README.md; `meta_gradient` lies above
the oracle, `tanbr` between the best static merge and `uniform`.
"""

import ml_collections

from configs.online import quick
from configs.pretrain import gpu as pretrain_gpu


def get_config() -> ml_collections.ConfigDict:
  """The quick config with a model, slots and seeds of a GPU's size."""
  config = quick.get_config()
  config.pretrain = pretrain_gpu.get_config().pretrain
  config.pretrain.num_steps = 2300
  config.num_rounds = 1000
  config.num_seeds = 4
  config.chunk_size = 250
  config.mix_options.drift.concentration = 0.25
  config.bandits = (
    "meta_gradient,tanbr,multitask_ts,lin_ucb,follow_task_mix,follow_usage,"
    "uniform,best_static,routed"
  )
  # Every learner as its constructor has it.
  config.methods = ml_collections.ConfigDict()
  # A GPU is fastest when it serves all seeds at once.
  config.loop = "vmap"
  return config
