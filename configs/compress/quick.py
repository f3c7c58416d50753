"""Every score of experts on a byte model of two CPU cores, E = 8, K = 2.

  python -m experiments.compress

Run time: nine minutes on two CPU cores.
Expected: the README's tables; at 50 % the specialists of `peu` lose 10 points
of next-byte accuracy in their domains, those of `frequency` 9, random ones 18.
"""

import dataclasses

import ml_collections

from tanbr_jax.training import pretraining


def get_config() -> ml_collections.ConfigDict:
  """The config; see the fields' comments."""
  config = ml_collections.ConfigDict()
  # See `pretraining.PretrainConfig`: a decoder, as continuations are compared,
  # whose experts are routed in every step.
  config.pretrain = dataclasses.asdict(
    pretraining.PretrainConfig(
      model="decoder",
      num_layers=2,
      model_dim=64,
      expert_dim=128,
      num_steps=400,
      routed_every=1,
    )
  )
  del config.pretrain["seed"]
  config.model_seed = 0
  # A checkpoint with experts instead, which is read and not trained; then the
  # dtype, empty for the checkpoint's, the tokens of a window, and whether its
  # layers are compiled as one loop, which is faster where there are many.
  config.model = ml_collections.ConfigDict(
    {
      "path": "",
      "finetunes": "",
      "dtype": "",
      "context": 256,
      "scanned": False,
    }
  )
  # A folder with one sub-folder of text for each domain; empty for built-in
  # text. A checkpoint needs one.
  config.data = ml_collections.ConfigDict({"path": ""})
  # Where text and trained models are kept; empty for the default.
  config.cache_dir = ""
  # A comma list of "methods", "samples" (calibration windows), "own_text" (the
  # model's own continuations), "truth" (every expert left out alone),
  # "costs", "merging" and "headroom" (what a better choice or training gives).
  config.stages = "truth,costs,methods,samples,own_text"
  # Names of `experiments.compress.methods.METHODS`.
  config.methods = (
    "peu,peu_no_transform,peu_no_threshold,peu_sigmoid,peu_exp,act_logits,"
    "all_logits,frequency,frequency_global,weighted_frequency,seer_soft,"
    "seer_soft_global,ean,reap,easy_ep,leave_one_out,enumeration,random"
  )
  # Those of "samples" and "own_text", which have one sparsity, 50 %.
  config.few_methods = "peu,frequency,reap"
  # Of the stage "merging": names of `compress.MERGES`, then those that are
  # trained for a few steps afterwards, how many and how fast.
  config.merging = ml_collections.ConfigDict(
    {
      "methods": (
        "average,frequency,task_mix,fisher,reg_mean,m_smoe,hc_smoe,ream,"
        "sub_moe,merge_moe,zip_it,namex"
      ),
      "recovery_methods": "frequency,merge_moe",
      "recovery_steps": 100,
      "recovery_rate": 1e-3,
    }
  )
  # Of the stage "headroom": swaps that the search tries, and the steps of
  # training afterwards and how fast.
  config.headroom = ml_collections.ConfigDict(
    {"search_steps": 200, "recovery_steps": 100, "recovery_rate": 1e-3}
  )
  # Shares of the experts that are cut, and those at which greedy continuations
  # are compared with the whole model's.
  config.sparsities = (0.125, 0.25, 0.5, 0.75)
  config.match_sparsities = (0.5,)
  # Each seed draws calibration windows of its own.
  config.num_seeds = 5
  config.first_seed = 0
  # Windows of each domain.
  config.calibration_windows = 50
  config.sample_counts = (1, 5, 10, 50, 100)
  config.batch_size = 10
  # Tokens of a domain that "enumeration" tries its sets on.
  config.max_samples = 256
  config.test_windows = 8
  # Prompts of each domain, the tokens after each.
  config.prompts = 4
  config.new_tokens = 8
  # Sequences of a timed step, and how often it is timed.
  config.decode_batches = (1, 16)
  config.latency_repeats = 20
  # The first domains alone; 0 for all.
  config.max_domains = 0
  return config
