"""The main job on two CPU cores.

  python -m experiments.online_merging

Run time: about nine minutes on two CPU cores, six once the model is kept.
Expected: the README's table; `meta_gradient` has less regret than `tanbr`, and
`tanbr` less than `uniform`; a merged slot takes less time than a routed one,
its experts an eighth of the bytes.
"""

import ml_collections
from ml_collections import config_dict

from configs.pretrain import quick as pretrain_quick


def get_config() -> ml_collections.ConfigDict:
  """The config; see the fields' comments."""
  config = ml_collections.ConfigDict()
  # See `pretraining.PretrainConfig`.
  config.pretrain = pretrain_quick.get_config().pretrain
  config.model_seed = 0
  # Another model, which is read and not trained: the folder of a checkpoint
  # with experts, or of the dense base whose fine-tunes or adapters, a comma
  # list of folders, are the experts. Then the dtype, empty for the
  # checkpoint's, the tokens of a window, which of the built-in domains it
  # serves, a comma list, empty for all, whether layers that are alike are
  # compiled as one loop: a deep model takes minutes else, and whether it was
  # trained on the folder of text: what `experiments.upcycle` trains on is not
  # served then.
  config.model = ml_collections.ConfigDict(
    {
      "path": "",
      "finetunes": "",
      "dtype": "",
      "context": 256,
      "tasks": "",
      "scanned": False,
      "held_out": False,
    }
  )
  # A folder with one sub-folder of text for each task; empty for built-in text.
  # For a checkpoint also files of JSON lines, see `data.load_tokens`.
  config.data = ml_collections.ConfigDict({"path": ""})
  # Where text and trained models are kept; empty for the default.
  config.cache_dir = ""
  # How the oracle is found, see `environments.oracle.table`, and how its error
  # is estimated, see `environments.oracle.error`.
  config.oracle = ml_collections.ConfigDict(
    {
      "seed": 0,
      "steps": 16,
      "search_windows": 16,
      "windows": 16,
      "error_mixes": 4,
      "error_starts": 2,
      "error_steps": 24,
      # Of a search without derivatives, for a reward that the log-likelihood
      # does not tell.
      "climb_rounds": 0,
    }
  )
  config.num_rounds = 600
  config.num_seeds = 4
  config.first_seed = 0
  config.requests = 16
  # How many of them give the gradient to the methods that need one; None for
  # all. And whose gradient it is, see `environments.moe_slots`: "agreement",
  # "differences" (which reads `merges` and `spread`), "entropy" or
  # "log_likelihood".
  config.gradient_requests = config_dict.placeholder(int)
  config.signal = "log_likelihood"
  config.merges = 2
  config.spread = 0.3
  # "accuracy" or "log_likelihood" of the next byte, or token; "judge", the
  # agreement with the routed model; of bytes also "whole_words", of which every
  # byte is right, and "plain_letters", whether the answer is plain text.
  config.reward = "accuracy"
  # A comma list of the tasks that earn a reward, empty for all: the requests of
  # others are served, and their text gives the same gradients, for nothing.
  config.paying_tasks = ""
  config.mix = "drift"
  config.mix_options = ml_collections.ConfigDict(
    {
      "drift": {"rate": 0.005, "concentration": 0.1},
      "fixed": {"concentration": 0.1},
      "piecewise": {"length": 100, "concentration": 0.1},
    }
  )
  # How the mix that the methods see is estimated from the requests of the slots
  # before: "moving_average" (with its decay), "adaptive_average" (of several
  # decays) or "count_min_sketch" (over a window of slots).
  config.monitor = "adaptive_average"
  config.monitor_decay = 0.8
  config.monitor_window = 5
  # A comma list of bandits.REGISTRY, of `methods`, and best_static,
  # follow_task_mix, routed; the oracle always runs.
  config.bandits = (
    "meta_gradient,tanbr,multitask_ts,lin_ucb,tanbr_paper,follow_usage,"
    "uniform,best_static,routed"
  )
  # Methods of one's own, or other options for those of the registry: name ->
  # {"bandit": name in the registry, options...}. Real rewards are noisier than
  # the synthetic ones; what is not named has its constructor's defaults.
  config.methods = ml_collections.ConfigDict(
    {
      "lin_ucb": {
        "exploration": 1.0,
        "regularisation": 0.3,
        "constant_scale": 10.0,
      },
      "neural_ucb": {"exploration": 0.1, "learning_rate": 1e-3},
    }
  )
  config.chunk_size = 100
  # Seeds one after the other: each has weights, hence a model, of its own.
  config.loop = "map"
  # "all", or how many devices of a machine share the seeds.
  config.devices = "1"
  config.latency_repeats = 40
  return config
