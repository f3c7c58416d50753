"""Masks and their rivals on the 42M byte model of 32 experts, on one GPU.

python -m experiments.masking --config=configs/masking/gpu.py
"""

import ml_collections

from configs.masking import quick
from configs.pretrain import fine

NUM_SELECTED = 4


def get_config() -> ml_collections.ConfigDict:
  """The config; see configs/masking/quick.py."""
  config = quick.get_config()
  config.pretrain.update(fine.get_config().pretrain)
  config.num_seeds = 3
  config.test_windows = 64
  config.calibration_windows = 2
  config.tuning.update(
    num_steps=300,
    batch_size=64,
    learning_rate=2e-4,
    added_learning_rate=3e-3,
  )
  half, little = {"budget": 2.0}, {"budget": 0.6}
  config.tuned = ml_collections.ConfigDict(
    {
      "control": {"method": "none"},
      "beam_budget__50": half,
      "beam_budget__15": little,
      "beam_beta__0_01": {"beta": 0.01},
      "beam_beta__0_1": {"beta": 0.1},
      "beam_beta__1": {"beta": 1.0},
      "masks_only__50": half | {"trains": "added"},
      "masks_only__15": little | {"trains": "added"},
      "beam_distilled__50": half | {"distils": True},
      "beam_distilled__15": little | {"distils": True},
      "smaller_k_trained__2": {"method": "smaller_k", "num_selected": 2},
      "smaller_k_trained__1": {"method": "smaller_k", "num_selected": 1},
      # M = 32 of E = 32 leaves half of K true experts, M = 181 .6 of 4.
      "null_experts__50": {"method": "null_experts", "num_null": 32},
      "null_experts__15": {"method": "null_experts", "num_null": 181},
      "zeda__50": _zeda(32),
      "zeda__15": _zeda(181),
      "top_any__8": {"method": "top_any", "num_slots": 8},
      # Ablations.
      "beam_without_l_reg": {"beta": 0.0},
      "beam_soft_then_hard": {"form": "soft"},
      "beam_annealed": {"form": "soft", "last_temperature": 0.02},
      "beam_l2": {"penalty": "l2"},
      "beam_strict": {"is_strict": True},
    }
  )
  config.free = ml_collections.ConfigDict(
    quick.free_methods(NUM_SELECTED, on="control", masked="beam_budget__50")
  )
  return config


def _zeda(num_null: int) -> dict[str, object]:
  return {
    "method": "null_experts",
    "num_null": num_null,
    "counts_null": True,
    "distils": True,
    "added_share": 0.3,
  }
