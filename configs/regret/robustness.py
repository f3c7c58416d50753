"""Figure: an estimated mix, masked feedback, rewards that move.

  python -m experiments.regret --config=configs/regret/robustness.py \
    --workdir=runs/robustness

Settings: `clean` shows every task and the true mix; `counted` serves 32
requests a slot, so that the mix is estimated from earlier counts, unseen tasks
are masked and the others have unequal counts; `moving` lets the rewards drift;
`both`.
Run time: about a minute of one CPU core for each method, setting and family;
not run at full length yet: what is expected is a prediction.
Expected: `counted` costs every learner something;
`moving` makes the regret of every learner that keeps all it saw linear, and
`forgetting`, which is `multitask_ts` with a memory of 500 slots, loses less.
"""

import ml_collections

from configs.regret import curves

COUNTED = {"requests": 32}
MOVING = {"reward_drift": 0.0005}


def get_config() -> ml_collections.ConfigDict:
  """Three families under a drifting mix, four settings."""
  config = curves.get_config()
  config.mixes = "drift"
  config.methods.forgetting = {"bandit": "multitask_ts", "forgetting": 0.998}
  config.bandits = "multitask_ts,forgetting,tanbr,lin_ucb,tanbr_paper,uniform"
  config.figures = "curves"
  config.settings = ml_collections.ConfigDict(
    {
      "clean": {},
      "counted": COUNTED,
      "moving": MOVING,
      "both": COUNTED | MOVING,
    }
  )
  return config
