"""The quick model under one mix of tasks, with so many requests a slot.

  python -m experiments.online_merging --config=configs/online/mixes.py \
    --config.mix=piecewise --config.requests=4 \
    --workdir=runs/evidence/mixes/piecewise_4

The mixes are drift, piecewise and fixed, the counts of the table 4, 16 and 64.
Seeds and methods are those of `stream.py`, less what its table tells apart by a
rate alone.

Expected: the tables of experiments/online/README.md.
"""

import ml_collections

from configs.online import stream


def get_config() -> ml_collections.ConfigDict:
  """The long stream's config with half its slots and fewer methods."""
  config = stream.get_config()
  config.num_rounds = 1000
  config.bandits = (
    "meta_gradient,ts_grad,tanbr,multitask_ts,lin_ucb,follow_usage,uniform,"
    "best_static,routed"
  )
  return config
