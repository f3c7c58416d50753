"""Learner and radio together for longer: slots on the quick byte model.

  python -m experiments.wireless --config=configs/wireless/slots.py \
    --workdir=runs/wireless_slots

With `--workdir=runs/wireless_slots`.
"""

import ml_collections

from configs.wireless import quick


def get_config() -> ml_collections.ConfigDict:
  """Hardly any curve, many slots."""
  config = quick.get_config()
  config.sweep.budget_shares = (0.0, 0.4)
  config.sweep.windows = 1
  config.sweep.bandwidth_factors = (1.0,)
  config.sweep.deadline_factors = (1.0,)
  config.sweep.timing_repeats = 1
  config.knobs = ml_collections.ConfigDict(
    {"ideal_top_k": (0.0,), "practical_top_k": (0.0,)}
  )
  config.slots.num_rounds = 400
  config.slots.num_seeds = 10
  config.slots.methods = ("tanbr", "multitask_ts")
  return config
