"""Figure: regret curves of the main methods, three families by three mixes.

  python -m experiments.regret --config=configs/regret/curves.py \
    --workdir=runs/curves

One stream a process, then merged:

  python -m experiments.regret --config=configs/regret/curves.py \
    --config.families=quadratic --config.mixes=drift \
    --workdir=runs/curves_parts/quadratic_drift
  python -m experiments.merge_runs --runs='runs/curves_parts/*' \
    --workdir=runs/curves

Run time: about 40 minutes of one CPU core for the nine streams of the main
methods, `--config.loop=map`; five minutes on 44 cores in 36 parts, of a method
or a few and one stream each.
Expected: the first table of experiments/regret/README.md.
"""

import ml_collections

from configs.regret import quick, tuned

# Seeds that no tuning has seen: `configs/regret/tune.py` begins at 1,000.
FIRST_SEED, NUM_SEEDS = 0, 16


def get_config() -> ml_collections.ConfigDict:
  """Nine streams at full length, 16 seeds."""
  config = quick.get_config()
  config.num_rounds = 5000
  config.first_seed = FIRST_SEED
  config.num_seeds = NUM_SEEDS
  config.mixes = "drift,piecewise,fixed"
  config.bandits = (
    "tanbr,multitask_ts,lin_ucb,neural_ucb,hct,tanbr_paper,uniform"
  )
  config.methods = ml_collections.ConfigDict(tuned.METHODS)
  config.chunk_size = 500
  config.figures = "curves"
  config.log_scale = True
  return config
