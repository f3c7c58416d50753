"""Figure: is the regret sublinear? R_t / sqrt(t) under a fixed mix.

  python -m experiments.regret --config=configs/regret/sublinearity.py \
    --workdir=runs/sublinearity

Run time: six to seven and a half minutes of one CPU core for a method and
family, two for `neural_ucb`, with `--config.loop=map`.
Expected: `<family>/fixed/multitask_ts/growth_exponent`, the slope of log R over
the last decade (1/2 for sqrt(T)), is .48 [.44, .52] on the quadratic family and
that of `tanbr_paper` 1.04 [.95, 1.12] on the saturating one: its regret is that
of its grid.
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
