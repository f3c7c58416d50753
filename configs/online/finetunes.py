"""Fine-tunes of one dense model as experts, without a router, on one GPU.

  python -m experiments.online_merging --config=configs/online/finetunes.py \
    --workdir=runs/online_finetunes

What people have who own one fine-tune a task of the same base: 1,500 dense
steps on all tasks, then one expert a task trained on that task alone, all else
frozen.

Run time: about three minutes on one H100.
Expected: the table of experiments/online/README.md.
"""

import ml_collections

from configs.online import gpu


def get_config() -> ml_collections.ConfigDict:
  """The GPU's config with another training, and methods without a router."""
  config = gpu.get_config()
  config.pretrain.update(
    dense_steps=1500,
    # Each task is drawn for an eighth of the mixes.
    num_steps=800,
    mixes_per_step=4,
    table="identity",
    one_hot_fraction=1.0,
    routed_every=0,
    experts_only=True,
  )
  config.num_rounds = 600
  config.bandits = (
    "tanbr,multitask_ts,lin_ucb,uniform,best_static,vertices,meta_gradient"
  )
  # The mix times the vertex of each task's own fine-tune.
  config.methods.vertices = {"bandit": "follow_task_mix"}
  return config
