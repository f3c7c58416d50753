"""Masks and their rivals on the 42M byte model of 32 experts, on one GPU.

  python -m experiments.masking --config=configs/masking/gpu.py \
    --workdir=runs/masking_gpu

With `gpu.py:FAMILIES`, a comma list such as "control,beam_budget", only those
are fine-tuned: parts of the study for several processes.

On an H200 with XLA_FLAGS="--xla_gpu_autotune_level=0
--xla_gpu_enable_triton_gemm=false", two or three processes a GPU, the model's
training takes 80 s; then a seed of "control,beam_budget" with all that is put
on them takes 400 to 560 s, one of "smaller_k_trained,top_any,beam_beta", of
"zeda,null_experts" or of "beam_distilled,masks_only" 130 to 315 s.
Expected: masks keep 99.6 % of the control's accuracy with half of the active
experts, 97.4 % with 14 % of them.

SCALES are for `configs/masking/rates.py` to choose on validation text. It chose
those of masks and of null experts. Of the control it chose .5, which is .13
points better there and is not what the README's table has. The others have not
been compared on this model.
"""

from collections.abc import Mapping
from typing import Any

import ml_collections

from configs.masking import quick
from configs.pretrain import fine

NUM_SELECTED = 4
# Rates are these times the family's scale.
LEARNING_RATE, ADDED_LEARNING_RATE = 5e-4, 3e-3
SCALES = {
  "control": 1.0,
  "beam_budget": 1.0,
  "smaller_k_trained": 1.0,
  "null_experts": 2.0,
  "zeda": 1.0,
}
# What of masks' training matters, with beta = .1, see
# configs/masking/ablations.py.
ABLATIONS = {
  "beam_without_l_reg": {"beta": 0.0},
  "beam_soft_then_hard": {"form": "soft"},
  "beam_annealed": {"form": "soft", "last_temperature": 0.02},
  "beam_l2": {"penalty": "l2"},
  "beam_strict": {"is_strict": True},
}
# Families that take the masks' rates; the first four are part of the study.
LIKE = dict.fromkeys(
  ("beam_beta", "beam_distilled", "masks_only", "top_any", *ABLATIONS),
  "beam_budget",
)


def entries() -> dict[str, dict[str, Any]]:
  """Every fine-tuning of the study and its ablations, but for its rates."""
  half, little = {"budget": 2.0}, {"budget": 0.6}
  # As many null experts leave about .6 of 4 true ones where the load is even;
  # a weaker penalty leaves more.
  null = {"method": "null_experts", "num_null": 181}
  zeda = null | {"counts_null": True, "distils": True, "added_share": 0.3}
  return {
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
    "top_any__4": {"method": "top_any", "num_slots": 4},
    **{name: {"beta": 0.1} | entry for name, entry in ABLATIONS.items()},
  }


def family(name: str) -> str:
  """The part of an entry's name before its setting."""
  return name.partition("__")[0]


def with_rates(
  entry: Mapping[str, Any], scale: float
) -> dict[str, dict[str, Any]]:
  """The entry with rates of that scale."""
  return {
    "learning_rate": scale * LEARNING_RATE,
    "added_learning_rate": scale * ADDED_LEARNING_RATE,
    **entry,
  }


def base() -> ml_collections.ConfigDict:
  """What the study and the choice of its rates share."""
  config = quick.get_config()
  config.pretrain.update(fine.get_config().pretrain)
  config.test_windows = 64
  config.calibration_windows = 2
  config.tuning.update(num_steps=500, batch_size=64)
  return config


def get_config(families: str = "") -> ml_collections.ConfigDict:
  """The config; see configs/masking/quick.py."""
  config = base()
  config.num_seeds = 3
  wanted = families.split(",") if families else {*SCALES, *LIKE} - {*ABLATIONS}
  config.tuned = ml_collections.ConfigDict(
    {
      name: with_rates(entry, SCALES[LIKE.get(family(name), family(name))])
      for name, entry in entries().items()
      if family(name) in wanted
    }
  )
  free = quick.free_methods(
    NUM_SELECTED, on="control", masked="beam_budget__50"
  )
  config.free = ml_collections.ConfigDict(
    {name: one for name, one in free.items() if one["on"] in config.tuned}
  )
  return config
