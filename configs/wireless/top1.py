"""SiftMoE and others on the byte model with one expert a token, on a CPU.

  python -m experiments.wireless --config=configs/wireless/top1.py \
    --workdir=runs/wireless_top1

With `--workdir=runs/wireless_top1`.
"""

import ml_collections

from configs.wireless import quick


def get_config() -> ml_collections.ConfigDict:
  """Switch's set-up in the paper, scaled to states of 64 values."""
  config = quick.get_config()
  config.pretrain.num_selected = 1
  # Stated: 1 MHz for 768 values, .7 s. [R]: loading, as long as Mixtral's.
  config.radio.bandwidth_hz = 1e6 * 64 / 768
  config.radio.deadline_s = 0.7
  config.radio.load_s = 0.02735
  # With a gate of one nothing changes below the nearest expert's distance.
  config.sweep.budget_shares = (0.0, 0.5, 0.55, 0.6, 0.65, 0.7, 0.8, 0.9)
  config.sweep.link_share = 0.6
  # With one expert a token there is no other slot to drop or to replace.
  del config.knobs["adapmoe"], config.knobs["sere"], config.knobs["wdmoe"]
  config.slots.num_rounds = 0
  return config
