"""The study on an upcycled SmolLM2-135M of eight experts, two a token.

  python -m experiments.upcycle --config=configs/upcycle/smollm2.py \
    --config.recipes=merged --config.num_seeds=1 --workdir=runs/upcycle_e8
  python -m experiments.wireless --config=configs/wireless/smollm2.py \
    --workdir=runs/wireless_smollm2

The text is the test text of the built-in domains.
"""

import ml_collections

from configs.wireless import quick


def get_config() -> ml_collections.ConfigDict:
  """Mixtral's set-up in the paper, scaled to states of 576 values."""
  config = quick.get_config()
  config.model.update(
    path="runs/upcycle_e8/merged_0",
    dtype="bfloat16",
    scanned=True,
    # A question's length [R].
    context=32,
  )
  # Stated: 74 ms, of which loading takes 27.35; 65,536 bits a state at 2 MHz.
  config.radio.deadline_s = 0.074
  config.radio.load_s = 0.02735
  config.radio.bandwidth_hz = 2e6 * 576 / 4096
  config.sweep.budget_shares = (0.0, 0.1, 0.2, 0.3, 0.5)
  config.sweep.link_share = 0.2
  config.sweep.windows = 2
  config.sweep.calibration_windows = 32
  config.sweep.bandwidth_factors = (0.5, 2.0)
  config.sweep.deadline_factors = (0.5, 2.0)
  config.knobs = ml_collections.ConfigDict(
    {
      "ideal_top_k": (0.0,),
      "practical_top_k": (0.0,),
      "wdmoe": (0.2, 0.6, 1.0),
      "adapmoe": (0.05, 0.15, 0.25),
      "des": (0.5, 0.7, 0.9),
      "jesa": (0.5, 0.7, 0.9),
      "sere": (0.6, 1.0),
      "random": (0.1, 0.3),
    }
  )
  # The online slots merge models of bytes alone.
  config.slots.num_rounds = 0
  return config
