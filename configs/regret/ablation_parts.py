"""Figure: what each part of `multitask_ts` is worth, and what a tree adds.

  python -m experiments.regret --config=configs/regret/ablation_parts.py \
    --workdir=runs/ablation_parts

Run time: a quarter of an hour of one CPU core, with `--config.loop=map`.
Expected: the table of experiments/regret/README.md; `all/no ascent/ratio` is
3.63 [3.33, 3.95].
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
