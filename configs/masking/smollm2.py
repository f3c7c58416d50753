"""Masks on a checkpoint with experts, such as SmolLM2 upcycled, on one GPU.

  python -m experiments.upcycle --config=configs/upcycle/smollm2.py \
    --config.recipes=routed --config.num_seeds=1 --config.upcycle.parts=4 \
    --config.upcycle.num_experts=32 --config.upcycle.num_selected=4 \
    --workdir=runs/upcycle_fine
  python -m experiments.masking --config=configs/masking/smollm2.py \
    --config.model.path=runs/upcycle_fine/routed_0 \
    --workdir=runs/masking_smollm2

Any folder whose top-K is of four experts; for another K the budgets, which are
numbers of experts, are to be changed. Rates were not chosen, as those of
configs/masking/gpu.py were. All parameters are trained in float32, which takes
16 bytes each with Adam, and about as much again for the scanned layers.
"""

import ml_collections

from configs.masking import quick

NUM_SELECTED = 4


def get_config() -> ml_collections.ConfigDict:
  """The config; see configs/masking/quick.py. `pretrain` is not used."""
  config = quick.get_config()
  config.model.update(
    path="runs/upcycle_fine/routed_0",
    dtype="float32",
    context=256,
    scanned=True,
  )
  config.test_windows = 32
  config.calibration_windows = 2
  config.tuning.update(
    num_steps=150,
    batch_size=16,
    learning_rate=1e-4,
    added_learning_rate=3e-3,
  )
  config.tuned = ml_collections.ConfigDict(
    {
      "control": {"method": "none"},
      "beam_budget__50": {"budget": 2.0},
      "beam_budget__15": {"budget": 0.6},
    }
  )
  free = quick.free_methods(
    NUM_SELECTED, on="control", masked="beam_budget__50"
  )
  wanted = ("smaller_k", "smaller_k_matched", "xmoe", "oea", "oea_xmoe")
  config.free = ml_collections.ConfigDict(
    {k: one for k, one in free.items() if k.partition("__")[0] in wanted}
  )
  return config
