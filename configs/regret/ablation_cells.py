"""Figure: the paper's boxes against cells that are simplices.

  python -m experiments.regret \
    --config=configs/regret/ablation_cells.py:tanbr \
    --workdir=runs/ablation_cells_tanbr

After the colon: the method that is varied, `tanbr` or `tanbr_paper`.
Run time: about a minute of one CPU core for each value and family; not run at
full length yet: what is expected is a prediction.
Expected: no more than a third apart, with either method.
"""

import ml_collections

from configs.regret import variants


def get_config(bandit: str = "tanbr") -> ml_collections.ConfigDict:
  """Both partitions."""
  return variants.of_option(
    bandit, "cells", ("simplex", "box"), reference="simplex"
  )
