"""Hyper-parameters of the learners, on seeds that no figure uses.

  python -m experiments.tune --config=configs/tune.py --workdir=runs/tune
  python -m experiments.tune --config=configs/tune.py:second \
    --workdir=runs/tune_second

Twelve points for every learner; the second stage gives the two baselines
twelve more. The best points are the defaults of the constructors.
Run time: about five minutes a stage on one GPU.
"""

import ml_collections

from configs.regret import quick

STAGES = {
  "first": {
    "tanbr": {
      "exploration": (0.15, 0.3, 0.6, 1.0),
      "regularisation": (1e-3, 1e-2, 1e-1),
    },
    "lin_ucb": {
      "exploration": (0.15, 0.3, 0.6, 1.0),
      "regularisation": (1e-3, 1e-2, 1e-1),
    },
    "neural_ucb": {
      "exploration": (0.1, 0.3, 1.0, 3.0),
      "regularisation": (1e-2, 1e-1, 1.0),
    },
  },
  "second": {
    "lin_ucb": {
      "exploration": (0.6, 1.0, 1.5, 2.0),
      "regularisation": (1e-4, 3e-4, 1e-3),
    },
    "neural_ucb": {
      "exploration": (0.03, 0.1, 0.3),
      "learning_rate": (1e-3, 3e-3, 1e-2, 3e-2),
    },
  },
}


def get_config(stage: str = "first") -> ml_collections.ConfigDict:
  """The quick config's streams, on tuning seeds."""
  config = quick.get_config()
  config.num_rounds = 3000
  config.num_seeds = 6
  config.first_seed = 1000
  config.grids = STAGES[stage]
  return config
