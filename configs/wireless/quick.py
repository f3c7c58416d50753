"""SiftMoE and others on the byte model with two experts a token, on a CPU.

python -m experiments.wireless
"""

import ml_collections

from configs.pretrain import quick as pretrain_quick


def get_config() -> ml_collections.ConfigDict:
  """The config; see the fields' comments."""
  config = ml_collections.ConfigDict()
  # See `pretraining.PretrainConfig`: half as wide as the quick model.
  config.pretrain = pretrain_quick.get_config().pretrain
  config.pretrain.update(
    num_layers=2,
    model_dim=64,
    expert_dim=256,
    num_steps=300,
    batch_size=32,
    routed_every=2,
  )
  config.seed = 0
  # A checkpoint instead: its folder, the dtype (empty for its own), and the
  # tokens of a window.
  config.model = ml_collections.ConfigDict(
    {
      "path": "",
      "finetunes": "",
      "dtype": "",
      "context": 64,
      "tasks": "",
      "scanned": False,
    }
  )
  config.data = ml_collections.ConfigDict({"path": ""})
  config.cache_dir = ""
  # Stated in the paper's settings: the helpers' power, the path loss, the
  # noise, Gamma fading of shape 2, at most 150 m; and that a state takes .165
  # bits a second and hertz (its GPT-OSS set-up: 46,080 bits, .8 MHz, .35 s) and
  # loading 37 % of the deadline (27.35 ms of its Mixtral set-up's 74 ms). Of
  # the 128 pairs of a prefill an expert then serves at least 48, which is
  # enough for nearly all of the router's choices. All else is [R].
  config.radio = ml_collections.ConfigDict(
    {
      "bandwidth_hz": 310e3,
      "deadline_s": 0.02,
      "load_s": 0.0074,
      "compute_s": 1e-5,
      # The user's own expert, and how many of a layer's it has.
      "local_compute_j": 1e-4,
      "num_local": 1,
      "helper_power_dbm": 38.0,
      "most_power_dbm": 23.0,
      "noise_dbm_per_hz": -174.0,
      "path_loss_exponent": 4.0,
      "fading_shape": 2.0,
      "radius_m": 150.0,
      "bits_per_value": 16,
      "counts_downlink": True,
    }
  )
  config.sweep = ml_collections.ConfigDict(
    {
      # Budgets of a token's deviation, in units of each layer's mean size of
      # an expert's output; the last two: of the other parts, and the table's
      # statistic.
      "budget_shares": (0.0, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.7),
      "link_share": 0.2,
      "table": "mean",
      # Places and fades, and the windows of each that are served.
      "realisations": 12,
      "windows": 8,
      # Tokens of a prefill; 0 for the model's context.
      "tokens": 0,
      "calibration_windows": 128,
      "bandwidth_factors": (0.25, 0.5, 1.0, 2.0),
      "deadline_factors": (0.5, 1.0, 2.0, 4.0),
      # Fast fading: slots of a transmission, and bits a slot and hertz.
      "num_slots": (1, 2, 4, 8),
      "slot_bits_per_hz": (1.0, 4.0),
      "timing_repeats": 10,
    }
  )
  # The other policies' own parameters, see `wireless.policies`; of "random" the
  # budget.
  config.knobs = ml_collections.ConfigDict(
    {
      "ideal_top_k": (0.0,),
      "practical_top_k": (0.0,),
      "wdmoe": (0.1, 0.2, 0.4, 0.6, 0.8, 1.0),
      "adapmoe": (0.05, 0.1, 0.15, 0.2, 0.25),
      "des": (0.4, 0.5, 0.6, 0.7, 0.8, 0.9),
      "jesa": (0.4, 0.5, 0.6, 0.7, 0.8, 0.9),
      "sere": (0.6, 1.0, 2.0),
      "random": (0.1, 0.3, 0.7),
    }
  )
  # Online: rounds of slots (0 leaves them out), requests of a slot, what a
  # joule a token costs in units of accuracy, the largest mean budget of a
  # layer, and the learners, of bandits.REGISTRY.
  config.slots = ml_collections.ConfigDict(
    {
      "num_rounds": 200,
      "num_seeds": 5,
      "requests": 4,
      "joules_weight": 40.0,
      "share": 0.7,
      "methods": ("tanbr",),
    }
  )
  return config
