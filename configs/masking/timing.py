"""Times a layer of experts with masks, on one GPU.

  python -m experiments.masking.timing

On a CPU: `--config.models=tiny --config.dtype=float32`.
"""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
  """The config; see `experiments.masking.timing.LayerSettings`."""
  config = ml_collections.ConfigDict()
  config.models = "olmoe_1b_7b,mixtral_8x7b"
  config.dtype = "bfloat16"
  config.num_tokens = (4096, 1, 16, 128)
  config.shares = (0.5, 0.15)
  # Half of OLMoE's K.
  config.num_own = 4
  config.repeats = 10
  config.min_ms = 5.0
  config.calls = 4
  config.least_tokens = 64
  return config
