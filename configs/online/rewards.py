"""The quick model where the served text's loss is not what is rewarded.

  python -m experiments.online_merging --config=configs/online/rewards.py \
    --config.reward=whole_words --workdir=runs/evidence/rewards/whole_words

Other rewards: `--config.reward=judge`; `--config.reward=plain_letters`; and
`--config.paying_tasks=prose,numbers,doctest` with the reward as it is, of which
the other five tasks earn nothing. `--config.signal=differences` tells gradients
of the reward itself, as splitting the requests between two merges estimates
them.

Expected: the tables of experiments/online/README.md.
"""

import ml_collections

from configs.online import mixes


def get_config() -> ml_collections.ConfigDict:
  """The config of one mix, with an oracle that searches by the reward too."""
  config = mixes.get_config()
  config.oracle.climb_rounds = 24
  return config
