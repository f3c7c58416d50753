"""Figure: lambda, the regularisation of the confidence matrix.

  python -m experiments.regret \
    --config=configs/regret/ablation_lambda.py:tanbr_paper \
    --workdir=runs/ablation_lambda

After the colon: the method that is varied, `tanbr_paper` (`tanbr` has no
such number: it learns the scales of its priors).
Run time: about a minute of one CPU core for each value and family; not run at
full length yet: what is expected is a prediction.
Expected: a broad minimum; the paper's lambda = 1 lies above it.
"""

import ml_collections

from configs.regret import variants


def get_config(bandit: str = "tanbr_paper") -> ml_collections.ConfigDict:
  """A factor of ten a step."""
  return variants.of_option(
    bandit, "regularisation", (1e-3, 1e-2, 1e-1, 1.0), reference=1.0
  )
