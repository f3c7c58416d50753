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
    num_steps=500,
    batch_size=64,
    learning_rate=5e-4,
    added_learning_rate=3e-3,
  )
  half, little = {"budget": 2.0}, {"budget": 0.6}
  # As many null experts leave about .6 of 4 true ones where the load is even;
  # a weaker penalty leaves more.
  null = {"method": "null_experts", "num_null": 181}
  zeda = null | {"counts_null": True, "distils": True, "added_share": 0.3}
  config.tuned = ml_collections.ConfigDict(
    {
      "control": {"method": "none"},
      "beam_budget__50": half,
      "beam_budget__15": little,
      "beam_beta__0_01": {"beta": 0.01},
      "beam_beta__0_1": {"beta": 0.1},
      "beam_beta__1": {"beta": 1.0},
      "beam_distilled__50": half | {"distils": True},
      "beam_distilled__15": little | {"distils": True},
      "masks_only__50": half | {"trains": "added"},
      "masks_only__15": little | {"trains": "added"},
      "smaller_k_trained__2": {"method": "smaller_k", "num_selected": 2},
      "smaller_k_trained__1": {"method": "smaller_k", "num_selected": 1},
      "null_experts__0_1": null | {"beta": 0.1},
      "null_experts__0_003": null | {"beta": 0.003},
      "zeda__0_1": zeda | {"beta": 0.1},
      "zeda__3": zeda | {"beta": 3.0},
    }
  )
  config.free = ml_collections.ConfigDict(
    quick.free_methods(NUM_SELECTED, on="control", masked="beam_budget__50")
  )
  return config
