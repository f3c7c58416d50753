"""The rates of configs/masking/gpu.py, chosen on validation text.

  python -m experiments.masking --config=configs/masking/rates.py \
    --workdir=runs/masking_rates
  python -m experiments.masking.choice --run=runs/masking_rates

Every family has the same three scales of its rates, in trainings half as long
as the study's, of a seed that is none of its. With `rates.py:FAMILIES` a part
of them.
"""

import ml_collections

from configs.masking import gpu

SCALES = {"0_5": 0.5, "1": 1.0, "2": 2.0}
SETTINGS = (
  "control",
  "beam_budget__50",
  "smaller_k_trained__1",
  "null_experts__0_1",
  "zeda__0_1",
)


def get_config(families: str = "") -> ml_collections.ConfigDict:
  """The config; see configs/masking/quick.py."""
  config = gpu.base()
  config.scored = "validation"
  config.num_seeds, config.first_seed = 1, 3
  config.tuning.num_steps //= 2
  wanted = families.split(",") if families else [*gpu.SCALES]
  entries = gpu.entries()
  config.tuned = ml_collections.ConfigDict(
    {
      f"{name}@{label}": gpu.with_rates(entries[name], scale)
      for name in SETTINGS
      if gpu.family(name) in wanted
      for label, scale in SCALES.items()
    }
  )
  config.free = ml_collections.ConfigDict()
  return config
