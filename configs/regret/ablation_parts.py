"""Figure: what each part of `tanbr` (the practical preset) is worth.

  python -m experiments.regret --config=configs/regret/ablation_parts.py \
    --workdir=runs/ablation_parts

Run time: to be measured.
Expected: without the ascent the regret is a multiple of the whole's; without
the Fourier features, without sampling and greedily it is larger; with one cell
in place of the tree it is about the same.
"""

import ml_collections

from configs.regret import variants

WHOLE = "whole"
# One part left out or replaced in each; the whole has the preset's options. A
# name holds no comma and no dot; options may name another "bandit".
PARTS = {
  WHOLE: {},
  "one cell for the tree": {"capacity": 1},
  "fresh draws for the tree": {"bandit": "multitask_ts"},
  "leaves without fresh draws": {"num_fresh": 0},
  "leaves without ascent": {"num_ascent_steps": 0, "num_fresh": 0},
  "boxes for simplices": {"cells": "box"},
  "UCB for sampling": {"rule": "ucb"},
  "greedy": {"exploration": 0.0},
  "few Fourier features": {"num_fourier": 8},
  "network for features": {"model": "network", "exploration": 1.0},
}


def get_config() -> ml_collections.ConfigDict:
  """The whole and its parts; ratios are to the whole."""
  return variants.of_method("tanbr", PARTS, reference=WHOLE)
