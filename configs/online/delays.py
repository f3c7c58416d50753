"""The quick model where rewards arrive 1, 10 or 50 slots late.

  python -m experiments.online_merging --config=configs/online/delays.py \
    --workdir=runs/evidence/delays

The gradient is the served text's own and is there at once; beside it the same
gradients as late as the rewards. The mix that methods see is not delayed.
"""

import ml_collections

from configs.online import mixes

DELAYS = (1, 10, 50)
METHODS = ("tanbr", "multitask_ts", "lin_ucb", "meta_gradient", "ts_grad")


def get_config() -> ml_collections.ConfigDict:
  """The config of one mix, with every method at every delay."""
  config = mixes.get_config()
  names = list(METHODS)
  for method in METHODS:
    options = config.methods.get(method, ml_collections.ConfigDict()).to_dict()
    for delay in DELAYS:
      name = f"{method}_late_{delay}"
      config.methods[name] = {"bandit": method, **options, "delay": delay}
      names.append(name)
  config.bandits = ",".join([*names, "uniform", "best_static", "routed"])
  return config
