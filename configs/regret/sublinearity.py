"""Figure: is the regret sublinear? R_t / sqrt(t) under a fixed mix.

  python -m experiments.regret --config=configs/regret/sublinearity.py \
    --workdir=runs/sublinearity

Run time: to be measured.
Expected: beside the grey shape of the paper's claim, sqrt(T) log T, the
curves of `tanbr`, `multitask_ts` and `lin_ucb` are flatter; that of
`tanbr_paper` rises with slope 1/2: in seven dimensions its regret is the
discretisation's, which is linear. `<family>/fixed/tanbr/growth_exponent` is the
slope of log R over the last decade, 1/2 for sqrt(T).
"""

import ml_collections

from configs.regret import curves


def get_config() -> ml_collections.ConfigDict:
  """The main methods for 20,000 rounds of one mix."""
  config = curves.get_config()
  config.num_rounds = 20_000
  config.mixes = "fixed"
  config.bandits = "tanbr,multitask_ts,lin_ucb,neural_ucb,tanbr_paper,uniform"
  config.chunk_size = 1000
  config.figures = "growth"
  return config
