"""Twelve points for every learner, on seeds that no figure uses.

  python -m experiments.tune --config=configs/tune.py --workdir=runs/tune

Run time: a few minutes on one GPU, about an hour on two CPU cores.
The best points are the defaults of the constructors.
"""

import ml_collections

from configs.regret import quick


def get_config() -> ml_collections.ConfigDict:
  """The quick config's streams, on tuning seeds."""
  config = quick.get_config()
  config.num_rounds = 3000
  config.num_seeds = 6
  config.first_seed = 1000
  config.grids = {
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
  }
  return config
