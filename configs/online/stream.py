"""The quick model on a long stream of many seeds, on one GPU.

  python -m experiments.online_merging --config=configs/online/stream.py \
    --workdir=runs/online_stream

Run time: about six minutes on one H100.
Expected: the table of experiments/online/README.md.
"""

import ml_collections

from configs.online import quick


def get_config() -> ml_collections.ConfigDict:
  """The quick config with the slots, seeds and methods that a GPU serves."""
  config = quick.get_config()
  config.num_rounds = 2000
  config.num_seeds = 16
  config.chunk_size = 500
  # A GPU is fastest when it serves all seeds at once.
  config.loop = "vmap"
  # First-order learners with a rate to set (Adam's: .3 and .1 on logits, .1 on
  # a table by task), other rules, and a posterior that learns from gradients.
  config.methods.update(
    {
      "adam_3": {"bandit": "online_gradient", "learning_rate": 0.3},
      "adam_1": {"bandit": "online_gradient", "learning_rate": 0.1},
      "table_1": {
        "bandit": "online_gradient",
        "learning_rate": 0.1,
        "contextual": True,
      },
      "newton": {"bandit": "online_newton"},
      "eg": {"bandit": "exponentiated_gradient"},
      "ts_grad": {"bandit": "multitask_ts", "gradients": True},
    }
  )
  config.bandits += ",follow_task_mix,adam_3,adam_1,table_1,newton,eg,ts_grad"
  return config
