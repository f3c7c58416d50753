"""Figure: numbers and cells of `tanbr`, one at a time.

  python -m experiments.regret --config=configs/regret/ablation_tanbr.py \
    --workdir=runs/ablation_tanbr

rho says how fast cells shrink with depth, which rules when they split;
exploration is the factor of the bonus, the paper's gamma. `tanbr` has no
network, hence no learning rate and no confidence matrix of one, and learns the
scales of its priors in the place of the paper's lambda.
"""

import ml_collections

from configs.regret import variants

OPTIONS = {
  "rho": (0.3, 0.5, 0.7),
  "exploration": (0.0, 0.1, 0.3, 2.0, 4.0),
  "cells": ("box",),
}


def get_config() -> ml_collections.ConfigDict:
  """Nine variants and the default."""
  return variants.of_options("tanbr", OPTIONS)
