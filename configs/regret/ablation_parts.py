"""Figure: what each part of `multitask_ts` is worth, and what a tree adds.

  python -m experiments.regret --config=configs/regret/ablation_parts.py \
    --workdir=runs/ablation_parts

Run time: about ten minutes of one CPU core for a family, at 2,000 rounds with
`--config.loop=map`.
Expected, at 2,000 rounds: the table of experiments/regret/README.md;
`all/no ascent/ratio` is 3.41 [3.14, 3.70], and no ratio is below 1. That table
is of the options that its section "Near the plain average" gives; the two parts
that it is about were not measured at this length.
"""

import ml_collections

from configs.regret import variants

WHOLE = variants.REFERENCE
# One part left out or replaced in each. A name holds no comma and no dot;
# options may name another "bandit".
PARTS = {
  WHOLE: {},
  "nothing in common": {"common_precision": float("inf")},
  "prior not learnt": {"prior_strength": float("inf")},
  "no Fourier features": {"num_fourier": 0},
  "all starts at once": {"candidate_growth": 1e9},
  "no ascent": {"num_ascent_steps": 0},
  "UCB for sampling": {"rule": "ucb"},
  "greedy": {"exploration": 0.0},
  "flat prior mean": {"concavity": 0.0},
  "full exploration at once": {"least_exploration": 1.0},
  "tree leaves and draws": {"bandit": "tanbr"},
  "tree leaves alone": {"bandit": "tanbr", "num_fresh": 0},
  "boxes and draws": {"bandit": "tanbr", "cells": "box"},
}


def get_config() -> ml_collections.ConfigDict:
  """The whole and its parts; ratios are to the whole."""
  return variants.of_method("multitask_ts", PARTS, reference=WHOLE)
