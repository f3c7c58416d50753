"""The rates of configs/masking/small.py, chosen on validation text.

  python -m experiments.masking --config=configs/masking/small_rates.py \
    --workdir=runs/masking_small_rates
  python -m experiments.masking.choice --run=runs/masking_small_rates

Every family has the same three scales of its rates, of a seed that is none of
the study's.
"""

import ml_collections

from configs.masking import rates, small

SETTINGS = (
  "control",
  "beam_budget__50",
  "smaller_k_trained__1",
  "null_experts__50",
  "zeda__50",
)


def get_config() -> ml_collections.ConfigDict:
  """The config; see configs/masking/quick.py."""
  config = small.base()
  config.scored = "validation"
  config.num_seeds, config.first_seed = 1, 3
  config.tuned = ml_collections.ConfigDict(
    {
      f"{name}@{label}": small.with_rates(small.entries()[name], scale)
      for name in SETTINGS
      for label, scale in rates.SCALES.items()
    }
  )
  config.free = ml_collections.ConfigDict()
  return config
