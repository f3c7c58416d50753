"""Scores of experts on a checkpoint, such as SmolLM2 with fine experts.

  python -m experiments.compress --config=configs/compress/smollm2.py \
    --config.model.path=FOLDER

FOLDER is a checkpoint with experts, for instance one that `experiments.upcycle`
wrote. The text is that of the built-in domains.
"""

import ml_collections

from configs.compress import quick


def get_config() -> ml_collections.ConfigDict:
  """The config; see configs/compress/quick.py."""
  config = quick.get_config()
  config.model.update(dtype="bfloat16", scanned=True)
  config.stages = "methods,truth,samples,headroom"
  config.methods = (
    "peu,peu_no_threshold,act_logits,all_logits,frequency,frequency_global,"
    "weighted_frequency,seer_soft,ean,reap,easy_ep,leave_one_out,random"
  )
  config.calibration_windows = 20
  config.sample_counts = (1, 5, 20)
  config.prompts = 2
  config.new_tokens = 16
  # Parameters in bfloat16 are not trained: small steps round to none.
  config.headroom.update(search_steps=200, recovery_steps=0)
  return config
