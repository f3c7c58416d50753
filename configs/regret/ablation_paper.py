"""Figure: what rules the regret of `tanbr_paper`, how its cells split.

  python -m experiments.regret --config=configs/regret/ablation_paper.py \
    --workdir=runs/ablation_paper

rho says how fast cells shrink with depth, which rules when they split; cells
are the boxes of the paper or simplices.

Run time: three and a half minutes of one CPU core for a family.
Expected: `quadratic/drift/rho=9e-01/ratio` is .33 [.28, .38],
`quadratic/drift/cells=simplex/ratio` .31 [.27, .34].

Other numbers of the paper are not in it. On that stream and 4 seeds the
ratios of gamma (`exploration` 0, .1, .3 and 2) lay between .997 and 1.003,
those of lambda (`regularisation` 1e-3, 1e-2 and .1) between 1.00 and 1.02,
those of the network's learning rate between 1.00 and 1.01 but for 1e-4, 1.06
[1.03, 1.08], and the diagonal in the place of the last layer's matrix had 1.00:
with the five leaves to which 2,000 slots lead there is next to nothing to
choose from. The full matrix, 5,256 rows, was not played.
"""

import ml_collections

from configs.regret import variants

OPTIONS = {"rho": (0.3, 0.7, 0.9), "cells": ("simplex",)}


def get_config() -> ml_collections.ConfigDict:
  """Four variants of the paper's method."""
  return variants.of_options("tanbr_paper", OPTIONS)
