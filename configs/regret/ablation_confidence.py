"""Figure: the form of the network's confidence matrix.

  python -m experiments.regret \
    --config=configs/regret/ablation_confidence.py:tanbr_paper \
    --workdir=runs/ablation_confidence

After the colon: the method that is varied, `tanbr_paper` (`tanbr` has no
network).
Run time: about a minute of one CPU core for each value and family; not run at
full length yet: what is expected is a prediction.
Expected: the last layer's and the full matrix are near one another, the
diagonal is worse. A round with the full matrix takes hundreds of times
longer: mind `--config.num_rounds`.
"""

import ml_collections

from configs.regret import variants


def get_config(bandit: str = "tanbr_paper") -> ml_collections.ConfigDict:
  """The three forms; full costs most."""
  return variants.of_option(
    bandit,
    "confidence",
    ("last_layer", "diagonal", "full"),
    reference="last_layer",
  )
