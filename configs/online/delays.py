"""The quick model where rewards arrive 1, 10 or 50 slots late.

  python -m experiments.online_merging --config=configs/online/delays.py \
    --workdir=runs/evidence/delays

The gradient of the served text needs no answer and is there at once: how it
would do as late as the rewards stands beside. The mix that methods see is not
delayed. The slots are those of `mixes.py` with its own mix and requests, where
the same methods learn at once.

Expected: the tables of experiments/online/README.md.
"""

import ml_collections

from configs.online import mixes

DELAYS = (1, 10, 50)
METHODS = ("tanbr", "meta_gradient")


def get_config() -> ml_collections.ConfigDict:
  """The config of one mix, with every method at every delay."""
  config = mixes.get_config()
  names = []
  for method in METHODS:
    for delay in DELAYS:
      name = f"{method}_late_{delay}"
      config.methods[name] = {"bandit": method, "delay": delay}
      names.append(name)
  config.bandits = ",".join(names)
  return config
