"""Figure: lambda, the regularisation of the confidence matrix.

  python -m experiments.regret \
    --config=configs/regret/ablation_lambda.py:tanbr \
    --workdir=runs/ablation_lambda_tanbr

After the colon: the method that is varied, `tanbr` or `tanbr_paper`.
Run time: to be measured.
Expected: a broad minimum; the paper's lambda = 1 lies above it.
"""

import ml_collections

from configs.regret import variants


def get_config(bandit: str = "tanbr") -> ml_collections.ConfigDict:
  """A factor of ten a step."""
  return variants.of_option(
    bandit, "regularisation", (1e-3, 1e-2, 1e-1, 1.0), reference=1e-1
  )
