"""Masks and trained rivals on the small byte model, three seeds, on a CPU.

  python -m experiments.masking --config=configs/masking/small.py

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
  "null_experts": 1.0,
  "zeda": 1.0,
}
# Families that take the masks' rates.
LIKE = {"top_any": "beam_budget", "beam_distilled": "beam_budget"}


def entries() -> dict[str, dict[str, Any]]:
  """Every fine-tuning, but for its rates."""
  # So many null experts leave 2 or .6 of 4 where the load is even.
  half = {"method": "null_experts", "num_null": 16}
  little = {"method": "null_experts", "num_null": 91}
  zeda = {"counts_null": True, "distils": True, "added_share": 0.3}
  return {
    "control": {"method": "none"},
    "beam_budget__50": {"budget": 2.0},
    "beam_budget__15": {"budget": 0.6},
    "smaller_k_trained__2": {"method": "smaller_k", "num_selected": 2},
    "smaller_k_trained__1": {"method": "smaller_k", "num_selected": 1},
    "null_experts__50": half,
    "null_experts__15": little,
    "zeda__50": half | zeda,
    "zeda__15": little | zeda,
    "top_any__4": {"method": "top_any", "num_slots": 4},
    "beam_distilled__50": {"budget": 2.0, "distils": True},
  }


def base() -> ml_collections.ConfigDict:
  """What the study and the choice of its rates share."""
  config = quick.get_config()
  config.test_windows = 32
  config.tuning.update(num_steps=200, batch_size=16)
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
  config.tuned = ml_collections.ConfigDict()
  for name, entry in entries().items():
    family = gpu.family(name)
    scale = SCALES[LIKE.get(family, family)]
    config.tuned[name] = with_rates(entry, scale)
  return config
