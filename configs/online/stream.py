"""The quick model on a long stream of many seeds, on one GPU.

  python -m experiments.online_merging --config=configs/online/stream.py \
    --workdir=runs/online_stream

Run time: about six minutes on one H100.
Expected: the table of experiments/online/README.md.
"""

import ml_collections

from configs.online import quick


def get_config() -> ml_collections.ConfigDict:
  """The quick config with the slots and seeds that a GPU serves."""
  config = quick.get_config()
  config.num_rounds = 2000
  config.num_seeds = 16
  config.chunk_size = 500
  # A GPU is fastest when it serves all seeds at once.
  config.loop = "vmap"
  return config
