"""Figure: the learning rate of the reward network.

  python -m experiments.regret \
    --config=configs/regret/ablation_learning_rate.py:tanbr_paper \
    --workdir=runs/ablation_learning_rate

After the colon: the method that is varied, `tanbr_paper` (`tanbr` has no
network).
Run time: about a minute of one CPU core for each value and family; not run at
full length yet: what is expected is a prediction.
Expected: a minimum near 1e-2; at 1e-4 the network has not learnt the landscape
when the run ends.
"""

import ml_collections

from configs.regret import variants


def get_config(bandit: str = "tanbr_paper") -> ml_collections.ConfigDict:
  """The paper's four values."""
  return variants.of_option(
    bandit, "learning_rate", (1e-4, 1e-3, 1e-2, 1e-1), reference=1e-2
  )
