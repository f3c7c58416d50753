"""Scores of experts on a checkpoint, such as SmolLM2 with fine experts.

  python -m experiments.compress --config=configs/compress/smollm2.py \
    --config.model.path=FOLDER --workdir=runs/compress_smollm2

FOLDER is a checkpoint with experts, for instance one that `experiments.upcycle`
wrote. The text is that of the built-in domains.

Run time: the stage "methods" took five minutes on an H200 beside other jobs.
Expected: the README's table; at 50 % the specialists of `peu` lose .3 points of
next-token accuracy in their domains, those of `frequency` 2.4, random ones 32.
"""

import ml_collections

from configs.compress import quick


def get_config() -> ml_collections.ConfigDict:
  """The config; see configs/compress/quick.py."""
  config = quick.get_config()
  config.model.update(dtype="bfloat16", scanned=True)
  config.stages = "methods,truth,samples,headroom"
  config.methods = (
    "peu,peu_no_threshold,all_logits,frequency,weighted_frequency,ean,reap,"
    "easy_ep,leave_one_out,random"
  )
  config.sparsities = (0.25, 0.5)
  config.max_domains = 4
  config.calibration_windows = 20
  config.sample_counts = (1, 5, 20)
  config.prompts = 2
  config.new_tokens = 16
  # Parameters in bfloat16 are not trained: small steps round to none.
  config.headroom.recovery_steps = 0
  return config
