"""Figure: rho, how fast cells shrink with depth, which rules when they split.

  python -m experiments.regret \
    --config=configs/regret/ablation_rho.py:tanbr \
    --workdir=runs/ablation_rho_tanbr

After the colon: the method that is varied, `tanbr` or `tanbr_paper`.
Run time: about a minute of one CPU core for each value and family; not run at
full length yet: what is expected is a prediction.
Expected: for `tanbr_paper` the regret falls as rho rises, because cells split
sooner; `tanbr`, which ascends its score, hardly depends on rho.
"""

import ml_collections

from configs.regret import variants


def get_config(bandit: str = "tanbr") -> ml_collections.ConfigDict:
  """The paper's four values."""
  return variants.of_option(bandit, "rho", (0.3, 0.5, 0.7, 0.9), reference=0.5)
