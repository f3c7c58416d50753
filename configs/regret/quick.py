"""Regret on synthetic environments, in a few minutes.

  python -m experiments.regret --config=configs/regret/quick.py

Run time: about four minutes on two CPU cores, most of it compilation, which a
second run finds in the cache.
Expected: `tanbr` and `lin_ucb` far below `tanbr_paper`; the numbers of a full
run are in `curves.py`.
"""

import ml_collections
from ml_collections import config_dict


def get_config() -> ml_collections.ConfigDict:
  """The config; see the fields' comments."""
  config = ml_collections.ConfigDict()
  config.num_experts = 8
  config.num_tasks = 8
  config.num_rounds = 2000
  config.num_seeds = 4
  config.first_seed = 0
  # Comma lists: of environments.landscapes.families.FAMILIES, of
  # environments.mixes.PROCESSES, of bandits.REGISTRY or of `methods` below.
  config.families = "quadratic,network,saturating"
  config.mixes = "drift"
  config.bandits = "tanbr,tanbr_paper,neural_ucb,lin_ucb,uniform"
  # The method that the ratios of the table divide by.
  config.baseline = "tanbr_paper"
  # Methods of one's own: name -> {"bandit": name in the registry, options...}.
  config.methods = ml_collections.ConfigDict()
  # Every stream once for each setting: name -> fields of this config that it
  # overrides. None: the config as it is.
  config.settings = ml_collections.ConfigDict()
  # Standard deviation of the reward of one request, and the noise's law.
  config.noise = 0.05
  config.noise_kind = "gaussian"
  # Rounds between two landscapes that each task makes in a slot; at 0 the
  # rewards stay.
  config.reward_drift = 0.0
  # Standard deviation of the gradient's noise for one request; None for streams
  # that tell no gradient. And how many slots lie between two gradients.
  config.gradient_noise = config_dict.placeholder(float)
  config.gradient_every = 1
  # Family -> options of its constructor.
  config.family_options = ml_collections.ConfigDict(
    {"fitted": {"model": "bytes_8"}}
  )
  # Requests in a slot; 0 shows every task in every slot, and the true mix.
  config.requests = 0
  # Of the moving average that estimates the mix when requests are counted.
  config.monitor_decay = 0.95
  # Mix -> options of its process, where its own defaults are not wanted. Small
  # concentrations make concentrated mixes.
  config.mix_options = ml_collections.ConfigDict(
    {
      "drift": {"rate": 0.002, "concentration": 0.25},
      "fixed": {"concentration": 0.25},
      "piecewise": {"length": 250, "concentration": 0.25},
    }
  )
  # Rounds between two saves.
  config.chunk_size = 250
  # "vmap" advances the seeds together, "map" one after the other: faster for
  # methods whose seeds take different branches.
  config.loop = "vmap"
  # Whether methods of one structure, that differ in numbers alone, advance
  # together in one program: hardly slower than one of them on a GPU.
  config.together = False
  # "all", or how many devices of a machine share the seeds.
  config.devices = "1"
  # Comma list of experiments.regret.figures.FIGURES.
  config.figures = "streams"
  # Whether regret is drawn on logarithmic axes: for methods far apart.
  config.log_scale = False
  # The option of `methods`, or the field of `settings`, that a figure
  # "ablation" or "settings" has on its axis.
  config.varied = ""
  return config
