"""Figure: gamma, the factor of the exploration bonus.

  python -m experiments.regret \
    --config=configs/regret/ablation_gamma.py:tanbr \
    --workdir=runs/ablation_gamma_tanbr

After the colon: the method that is varied, `tanbr` or `tanbr_paper`.
Run time: about a minute of one CPU core for each value and family; not run at
full length yet: what is expected is a prediction.
Expected: a broad minimum; without a bonus (0) the spread over seeds is wide.
"""

import ml_collections

from configs.regret import variants


def get_config(bandit: str = "tanbr") -> ml_collections.ConfigDict:
  """From greedy to twice the paper's."""
  return variants.of_option(
    bandit, "exploration", (0.0, 0.1, 0.3, 0.6, 1.0, 2.0), reference=0.6
  )
