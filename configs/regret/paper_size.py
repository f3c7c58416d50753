"""Regret on synthetic environments: 5,000 rounds, 8 seeds, two mixes.

  python -m experiments.regret --config=configs/regret/paper_size.py \
    --workdir=runs/regret_paper_size

Run time: about a quarter of an hour on two CPU cores.
Expected: the geometric mean of `<family>/<mix>/tanbr/ratio` is .083, that is,
a twelfth of the expected regret of `tanbr_paper`; .081 for `lin_ucb`, .65 for
`neural_ucb`.
"""

import ml_collections

from configs.regret import quick


def get_config() -> ml_collections.ConfigDict:
  """The quick config at full length."""
  config = quick.get_config()
  config.num_rounds = 5000
  config.num_seeds = 8
  config.mixes = "drift,piecewise"
  config.chunk_size = 500
  return config
