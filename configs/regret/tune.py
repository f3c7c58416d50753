"""Hyper-parameters of the learners, on seeds that no figure uses.

  python -m experiments.tune --config=configs/regret/tune.py --workdir=runs/tune

One learner alone, for instance to share them out among processes:

  python -m experiments.tune --config=configs/regret/tune.py \
    --config.learners=hoo --workdir=runs/tune_hoo

The neural bandits once more, on other candidates than 20 fresh draws:

  python -m experiments.tune --config=configs/regret/tune.py:candidates \
    --workdir=runs/tune_candidates

Twelve points for every learner, on the same streams and seeds. The best points
are kept in `configs/regret/tuned.py`; `tanbr_paper`, `neural_ucb_theory` and
`neural_ucb_practical` keep their papers' choices, and random play has nothing
to tune. Run time: one to three minutes of one CPU core for a learner,
with `--config.loop=map`.
"""

import ml_collections

from configs.regret import quick

GRIDS = {
  "multitask_ts": {
    "exploration": (0.4, 0.6, 0.8),
    "task_precision": (0.1, 0.3),
    "length_scale": (0.45, 0.6),
  },
  "tanbr": {
    "exploration": (0.4, 0.6, 0.8),
    "task_precision": (0.1, 0.3),
    "rho": (0.8, 0.9),
  },
  "lin_ucb": {
    "exploration": (0.5, 1.0, 2.0, 4.0),
    "regularisation": (1e-4, 1e-3, 1e-2),
  },
  "lin_ts": {
    "exploration": (0.3, 0.6, 1.0, 1.5),
    "regularisation": (1e-3, 1e-2, 1e-1),
  },
  "gp_ucb": {
    "exploration": (0.25, 0.5, 1.0),
    "length_scale": (0.5, 1.0, 1.5, 2.5),
  },
  "neural_ucb": {
    "exploration": (0.01, 0.03, 0.1, 0.3),
    "learning_rate": (1e-3, 3e-3, 1e-2),
  },
  "neural_ts": {
    "exploration": (0.01, 0.03, 0.1, 0.3),
    "learning_rate": (1e-3, 3e-3, 1e-2),
  },
  "neural_epsilon_greedy": {
    "epsilon": (0.1, 0.5),
    "decay": (0.5, 0.8),
    "learning_rate": (1e-3, 3e-3, 1e-2),
  },
  "neural_linear": {
    "exploration": (0.25, 0.5, 1.0),
    "regularisation": (0.01, 0.03, 0.1, 0.3),
  },
  "hoo": {
    "nu": (0.1, 0.2, 0.5),
    "rho": (0.8, 0.9),
    "noise_scale": (0.01, 0.05),
  },
  "hct": {
    "nu": (0.1, 0.2, 0.5),
    "rho": (0.85, 0.95),
    "c": (0.02, 0.05),
  },
  "zooming": {
    "lipschitz": (0.01, 0.03, 0.05, 0.1),
    "noise_scale": (0.02, 0.05, 0.1),
  },
  "sto_soo": {
    "noise_scale": (0.02, 0.05, 0.1, 0.3),
    "horizon": (100.0, 200.0, 400.0),
  },
  "ucb1": {
    "exploration": (0.01, 0.02, 0.03, 0.05, 0.07, 0.1, 0.15)
    + (0.2, 0.3, 0.5, 0.7, 1.0),
  },
  "epsilon_greedy": {
    "epsilon": (0.1, 0.3, 1.0),
    "decay_rounds": (3.0, 10.0, 30.0, 100.0),
  },
  "thompson": {
    "prior_scale": (0.1, 0.3, 1.0),
    "exploration": (0.1, 0.3, 1.0, 2.0),
  },
  "exp3": {
    "exploration": (0.01, 0.03, 0.05, 0.1, 0.15, 0.2, 0.3)
    + (0.5, 0.7, 1.0, 1.5, 2.0),
  },
  "cats": {
    "epsilon": (0.03, 0.1),
    "learning_rate": (0.3, 1.0, 8.0),
    "baseline": (0.0, 0.5),
  },
}


# Where a network's score is not looked up at 20 fresh draws.
CANDIDATES = {
  "neural_ucb": "tree",
  "neural_linear": "ascent",
  "neural_epsilon_greedy": "ascent",
}


def get_config(stage: str = "") -> ml_collections.ConfigDict:
  """The quick config's streams, on tuning seeds.

  Args:
    stage: "candidates" for the neural bandits on CANDIDATES.
  """
  config = quick.get_config()
  config.num_rounds = 1000
  config.num_seeds = 4
  config.first_seed = 1000
  config.families = "quadratic,network"
  config.mixes = "drift,fixed"
  # Comma list of learners; empty for all of `grids`.
  config.learners = ""
  grids = GRIDS
  if stage == "candidates":
    grids = {name: GRIDS[name] for name in CANDIDATES}
    config.methods = ml_collections.ConfigDict(
      {name: {"candidates": value} for name, value in CANDIDATES.items()}
    )
  config.grids = ml_collections.ConfigDict(grids)
  return config
