"""Masks and their rivals on a small byte model, on two CPU cores.

python -m experiments.masking
"""

import dataclasses

import ml_collections

from tanbr_jax.training import pretraining, sparse_tuning


def free_methods(
  num_selected: int, *, on: str, masked: str
) -> dict[str, dict[str, object]]:
  """Training-free rivals of a model of K experts per token.

  Args:
    num_selected: K.
    on: the fine-tuned model that they are put on.
    masked: the masked model that batch-aware choices follow, beside `on`.
  """
  found: dict[str, dict[str, object]] = {}
  for k in range(1, num_selected):
    one = {"method": "smaller_k", "num_selected": k, "on": on}
    found[f"smaller_k__{k}"] = one
    found[f"smaller_k_old_gates__{k}"] = one | {"keeps_gates": True}
    found[f"smaller_k_matched__{k}"] = one | {"matches": True}
  for percent in (10, 20, 30, 40):
    found[f"top_p__{percent}"] = {
      "method": "top_p",
      "threshold": percent / 100,
      "on": on,
    }
  for percent in (30, 50, 70, 90):
    found[f"xmoe__{percent}"] = {
      "method": "xmoe",
      "threshold": percent / 100,
      "on": on,
    }
  for percent in (25, 50, 75, 90):
    found[f"naee_skip__{percent}"] = {
      "method": "naee_skip",
      "quantile": percent / 100,
      "on": on,
    }
  for percent in (30, 50, 70):
    found[f"oea_xmoe__{percent}"] = {
      "method": "oea_xmoe",
      "threshold": percent / 100,
      "on": on,
    }
  for place, suffix in ((on, ""), (masked, "_after_beam")):
    for k in range(1, num_selected):
      for method in ("oea", "sere"):
        found[f"{method}{suffix}__{k}"] = {
          "method": method,
          "num_own": k,
          "on": place,
        }
    for num_read in (num_selected, 2 * num_selected, 3 * num_selected):
      found[f"xshare{suffix}__{num_read}"] = {
        "method": "xshare",
        "num_read": num_read,
        "on": place,
      }
  return found


def get_config() -> ml_collections.ConfigDict:
  """The config; see the fields' comments."""
  config = ml_collections.ConfigDict()
  # The byte model, see `pretraining.PretrainConfig`: top-4 of 16 small experts.
  config.pretrain = dataclasses.asdict(
    pretraining.PretrainConfig(
      num_layers=2,
      expert_dim=128,
      num_experts=16,
      num_selected=4,
      num_steps=300,
      routed_every=1,
    )
  )
  # A checkpoint in its place: its folder, type and context; see
  # configs/online/quick.py.
  config.model = ml_collections.ConfigDict(
    {"path": "", "dtype": "", "context": 256}
  )
  # A folder with one sub-folder of text for each task; empty for built-in text.
  config.data = ml_collections.ConfigDict({"path": ""})
  config.cache_dir = ""
  # Seeds of the fine-tunings; the model that they start from is one.
  config.num_seeds = 1
  config.first_seed = 0
  # The split that is scored: "test", or "validation" to choose settings on.
  config.scored = "test"
  # Windows of each task that are scored, and tokens of a decoding step that
  # distinct experts are counted of.
  config.test_windows = 16
  config.batch_size = 16
  # Windows of each task that rivals are calibrated on.
  config.calibration_windows = 4
  # What all fine-tunings share, see `sparse_tuning.TuningConfig`.
  config.tuning = dataclasses.asdict(
    sparse_tuning.TuningConfig(
      num_steps=100, learning_rate=1e-3, added_learning_rate=1e-2
    )
  )
  config.tuned = ml_collections.ConfigDict(
    {
      "control": {"method": "none"},
      "beam_budget__50": {"budget": 2.0},
      "beam_budget__15": {"budget": 0.6},
      "beam_beta__0_1": {"beta": 0.1},
      "masks_only__50": {"budget": 2.0, "trains": "added"},
      "null_experts__50": {"method": "null_experts", "num_null": 16},
    }
  )
  config.free = ml_collections.ConfigDict(
    free_methods(4, on="control", masked="beam_budget__50")
  )
  return config
