"""Figure: steps of the ascent, which a decision's time is made of.

  python -m experiments.regret \
    --config=configs/regret/ablation_steps.py:tanbr \
    --workdir=runs/ablation_steps_tanbr

After the colon: the method that is varied, `tanbr` or `multitask_ts`. The seeds
are tuning seeds, as the default is chosen by this.
"""

import ml_collections

from configs.regret import tune, variants


def get_config(bandit: str = "tanbr") -> ml_collections.ConfigDict:
  """From 4 steps to twice the default, 2,000 rounds."""
  config = variants.of_option(
    bandit, "num_ascent_steps", (4, 6, 8, 12, 24), reference=12
  )
  config.num_rounds = 2000
  config.first_seed = tune.get_config().first_seed
  return config
