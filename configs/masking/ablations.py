"""What of BEAM's training matters, on the 42M byte model, on one GPU.

python -m experiments.masking --config=configs/masking/ablations.py
"""

import ml_collections

from configs.masking import gpu


def get_config() -> ml_collections.ConfigDict:
  """The config; see configs/masking/quick.py."""
  config = gpu.get_config()
  config.num_seeds = 1
  config.tuning.update(num_steps=300, learning_rate=2e-4)
  config.tuned = ml_collections.ConfigDict(
    {
      "control": {"method": "none"},
      "beam_beta__0_1": {"beta": 0.1},
      "beam_without_l_reg": {"beta": 0.0},
      "beam_soft_then_hard": {"form": "soft"},
      "beam_annealed": {"form": "soft", "last_temperature": 0.02},
      "beam_l2": {"penalty": "l2"},
      "beam_strict": {"is_strict": True},
      "top_any__8": {"method": "top_any", "num_slots": 8},
    }
  )
  config.free = ml_collections.ConfigDict()
  return config
