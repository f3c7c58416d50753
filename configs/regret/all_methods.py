"""Table and figures: every registered method on two environments.

  python -m experiments.regret --config=configs/regret/all_methods.py \
    --workdir=runs/all_methods
  python -m experiments.algorithm_table --run=runs/all_methods --write

The second line keeps what the table of experiments/regret/README.md needs in
`all_methods.json` beside it and rewrites the table.

Run time: one to five minutes of one CPU core a method (`gp_ucb` seven), an hour
in all, without `neural_ucb_theory`, whose `quadratic/drift` takes 5.5 minutes
for 3 seeds with other work on the core.
Expected: of those that are told rewards, methods with a model of the rewards in
x and an ascent of their score come first. On the quadratic stream methods on a
fixed set of arms are level with `uniform` or above it, and trees without a
model have half of its regret or more, because they need a pull of every arm or
cell in every context; on the network stream all of these have a sixth to two
thirds of it.
"""

import ml_collections

from configs.regret import curves
from tanbr_jax import bandits

STREAMS = ("quadratic/drift", "network/drift")


def get_config() -> ml_collections.ConfigDict:
  """The registry but the oracle, whose regret is 0 by definition.

  Nor is there a router here whose usage could be followed. Gradients are exact
  but for noise as large as that of a reward.
  """
  config = curves.get_config()
  config.families = "quadratic,network"
  config.mixes = "drift"
  config.bandits = ",".join(
    sorted({*bandits.REGISTRY} - {"oracle", "follow_usage"})
  )
  config.gradient_noise = 0.05
  # On a tree's leaves instead of the paper's fresh draws (tune.py:candidates).
  config.methods.neural_ucb = {
    "candidates": "tree",
    "exploration": 0.3,
    "learning_rate": 3e-3,
  }
  config.figures = "streams"
  config.log_scale = True
  return config
