"""SiftMoE and others on the byte model with one expert a token, on a CPU.

  python -m experiments.wireless --config=configs/wireless/top1.py

With `--workdir=runs/wireless_top1`.
"""

import ml_collections

from configs.wireless import quick


def get_config() -> ml_collections.ConfigDict:
  """Switch's shape: decisions are exact."""
  config = quick.get_config()
  config.pretrain.num_selected = 1
  # Half as many pairs: half the bandwidth.
  config.radio.bandwidth_hz = 40e3
  # With one expert a token there is no other slot to drop or to replace.
  del config.knobs["adapmoe"], config.knobs["sere"], config.knobs["wdmoe"]
  config.slots.num_rounds = 0
  return config
