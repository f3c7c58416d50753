"""Figure: the paper's numbers and choices in `tanbr_paper`, one at a time.

  python -m experiments.regret --config=configs/regret/ablation_paper.py \
    --workdir=runs/ablation_paper

rho says how fast cells shrink with depth, which rules when they split;
exploration is the paper's gamma, the factor of the bonus; regularisation its
lambda, of the confidence matrix; learning_rate the network's; cells the boxes
of the paper or simplices; confidence the form of the matrix.
"""

import ml_collections

from configs.regret import variants

OPTIONS = {
  "rho": (0.3, 0.7, 0.9),
  "exploration": (0.0, 0.1, 0.3, 2.0),
  "regularisation": (1e-3, 1e-2, 1e-1),
  "learning_rate": (1e-4, 1e-3, 1e-1),
  "cells": ("simplex",),
  "confidence": ("diagonal", "full"),
}


def get_config() -> ml_collections.ConfigDict:
  """Sixteen variants of the paper's method."""
  config = variants.of_options("tanbr_paper", OPTIONS)
  # Its matrix has 5,256 rows, a product with each for every node of the tree:
  # room for the few that it grows.
  config.methods["confidence=full"].capacity = 127
  return config
