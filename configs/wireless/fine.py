"""The study on a byte model with four of 32 experts a token, on a CPU.

  python -m experiments.wireless --config=configs/wireless/fine.py \
    --workdir=runs/wireless_fine

With `--workdir=runs/wireless_fine`.
"""

import ml_collections

from configs.pretrain import fine as pretrain_fine
from configs.wireless import quick


def get_config() -> ml_collections.ConfigDict:
  """GPT-OSS's set-up in the paper, scaled to states of 64 values."""
  config = quick.get_config()
  # Only routed steps, as that configuration: nothing is merged.
  fine = pretrain_fine.get_config().pretrain
  config.pretrain.update(
    num_experts=fine.num_experts,
    num_selected=fine.num_selected,
    routed_every=fine.routed_every,
    table=fine.table,
    anchor_concentration=fine.anchor_concentration,
    expert_dim=64,
  )
  # Stated: .8 MHz for 2,880 values, .35 s. [R]: loading, as long as Mixtral's.
  config.radio.bandwidth_hz = 0.8e6 * 64 / 2880
  config.radio.deadline_s = 0.35
  config.radio.load_s = 0.02735
  config.sweep.windows = 1
  config.sweep.calibration_windows = 64
  config.sweep.bandwidth_factors = (0.5, 1.0)
  config.sweep.deadline_factors = (0.5, 1.0)
  config.knobs.update(
    wdmoe=(0.1, 0.3, 0.6, 1.0),
    adapmoe=(0.02, 0.05, 0.1, 0.2),
    des=(0.4, 0.6, 0.8, 0.9),
    jesa=(0.4, 0.6, 0.8, 0.9),
    sere=(0.6, 1.0, 2.0),
    random=(0.1, 0.3),
  )
  # The online slots choose among pairs of options: at most two slots a token.
  config.slots.num_rounds = 0
  return config
