"""What of BEAM's training matters, and trained rivals, in a shorter training.

  python -m experiments.masking --config=configs/masking/ablations.py

The 42M byte model of 32 experts, on one GPU; one seed.
"""

import ml_collections

from configs.masking import gpu


def get_config() -> ml_collections.ConfigDict:
  """The config; see configs/masking/quick.py."""
  config = gpu.base()
  config.tuning.update(
    num_steps=300,
    learning_rate=2e-4,
    added_learning_rate=gpu.ADDED_LEARNING_RATE,
  )
  null = {"method": "null_experts"}
  config.tuned = ml_collections.ConfigDict(
    {
      "control": {"method": "none"},
      "beam_beta__0_1": {"beta": 0.1},
      "beam_beta__1": {"beta": 1.0},
      "beam_without_l_reg": {"beta": 0.0},
      "beam_soft_then_hard": {"form": "soft"},
      "beam_annealed": {"form": "soft", "last_temperature": 0.02},
      "beam_l2": {"penalty": "l2"},
      "beam_strict": {"is_strict": True},
      "smaller_k_trained__1": {"method": "smaller_k", "num_selected": 1},
      "null_experts__32": null | {"num_null": 32},
      "zeda__181": null
      | {
        "num_null": 181,
        "counts_null": True,
        "distils": True,
        "added_share": 0.3,
      },
      "top_any__8": {"method": "top_any", "num_slots": 8},
    }
  )
  config.free = ml_collections.ConfigDict()
  return config
