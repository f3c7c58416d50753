"""Masks and trained rivals on the small byte model, three seeds, on a CPU.

  python -m experiments.masking --config=configs/masking/small.py \
    --workdir=runs/masking_small

The model of configs/masking/quick.py, in shorter steps and more of them. SCALES
are those that `configs/masking/small_rates.py` found best on validation text.
"""

from typing import Any

import ml_collections

from configs.masking import gpu, quick

# Rates are these times the family's scale.
LEARNING_RATE, ADDED_LEARNING_RATE = 1e-3, 1e-2
SCALES = {
  "control": 1.0,
  "beam_budget": 1.0,
  "smaller_k_trained": 1.0,
  "zeda": 1.0,
}
FREE = ("smaller_k", "smaller_k_matched", "xmoe", "oea", "oea_xmoe")


def entries() -> dict[str, dict[str, Any]]:
  """Every fine-tuning, but for its rates."""
  # As many null experts leave 2 of 4 true ones where the load is even.
  zeda = {"method": "null_experts", "num_null": 16, "counts_null": True}
  return {
    "control": {"method": "none"},
    "beam_budget__50": {"budget": 2.0},
    "beam_budget__15": {"budget": 0.6},
    "smaller_k_trained__2": {"method": "smaller_k", "num_selected": 2},
    "zeda__50": zeda | {"distils": True, "added_share": 0.3},
  }


def base() -> ml_collections.ConfigDict:
  """What the study and the choice of its rates share."""
  config = quick.get_config()
  config.test_windows = 32
  config.tuning.update(num_steps=120, batch_size=16)
  return config


def with_rates(entry: dict[str, Any], scale: float) -> dict[str, Any]:
  """The entry with rates of that scale."""
  return {
    "learning_rate": scale * LEARNING_RATE,
    "added_learning_rate": scale * ADDED_LEARNING_RATE,
    **entry,
  }


def get_config() -> ml_collections.ConfigDict:
  """The config; see configs/masking/quick.py."""
  config = base()
  config.num_seeds = 3
  config.tuned = ml_collections.ConfigDict(
    {
      name: with_rates(entry, SCALES[gpu.family(name)])
      for name, entry in entries().items()
    }
  )
  config.free = ml_collections.ConfigDict(
    {
      name: entry
      for name, entry in config.free.to_dict().items()
      if gpu.family(name) in FREE
    }
  )
  return config
