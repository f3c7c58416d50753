"""The rates of configs/masking/small.py, chosen on validation text.

  python -m experiments.masking --config=configs/masking/small_rates.py \
    --workdir=runs/masking_small_rates
  python -m experiments.masking.choice --run=runs/masking_small_rates

Every family has the same two scales of its rates, in trainings half as long as
the study's, of a seed that is none of its.
"""

import ml_collections

from configs.masking import small

SCALES = {"1": 1.0, "2": 2.0}
SETTINGS = (
  "control",
  "beam_budget__50",
  "smaller_k_trained__2",
  "zeda__50",
)


def get_config() -> ml_collections.ConfigDict:
  """The config; see configs/masking/quick.py."""
  config = small.base()
  config.scored = "validation"
  config.num_seeds, config.first_seed = 1, 3
  config.tuning.num_steps //= 2
  config.tuned = ml_collections.ConfigDict(
    {
      f"{name}@{label}": small.with_rates(small.entries()[name], scale)
      for name in SETTINGS
      for label, scale in SCALES.items()
    }
  )
  config.free = ml_collections.ConfigDict()
  return config
