"""Figure: an estimated mix, masked feedback, rewards that move.

  python -m experiments.regret --config=configs/regret/robustness.py \
    --workdir=runs/robustness

Settings: `clean` shows every task and the true mix; `counted` serves 32
requests a slot, so that the mix is estimated from earlier counts, unseen tasks
are masked and the others have unequal counts; `moving` lets the rewards drift;
`both`.
Run time: under half a minute of one CPU core for each method, setting and
family at 2,000 rounds; not run at full length.
Expected, quadratic at 2,000 rounds: regret of `multitask_ts` over that of
`lin_ucb` .60 clean, .77 counted, .88 moving, .75 both; of `forgetting`, which
is `multitask_ts` with a memory of 500 slots, .79, .84, .77, .65; both with the
options that README's "Near the plain average" gives.
"""

import ml_collections

from configs.regret import curves

COUNTED = {"requests": 32}
MOVING = {"reward_drift": 0.0005}


def get_config() -> ml_collections.ConfigDict:
  """Three families under a drifting mix, four settings."""
  config = curves.get_config()
  config.num_rounds = 2000
  config.mixes = "drift"
  config.methods.forgetting = {"bandit": "multitask_ts", "forgetting": 0.998}
  config.bandits = "multitask_ts,forgetting,tanbr,lin_ucb,uniform"
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
