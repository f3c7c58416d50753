"""Figure: an estimated mix, masked feedback, rewards that move.

  python -m experiments.regret --config=configs/regret/robustness.py \
    --workdir=runs/robustness

Settings: `clean` shows every task and the true mix; `counted` serves 32
requests a slot, so that the mix is estimated from earlier counts, unseen tasks
are masked and the others have unequal counts; `moving` lets the rewards drift;
`both`.
Run time: three to four minutes of one CPU core for a family and method, with
`--config.loop=map`.
Expected: the table of experiments/regret/README.md; on the quadratic family
`multitask_ts` has 15 clean, 16 counted, 68 moving and 42 both; `forgetting`,
the same with a memory of 500 slots, has 18, 16, 54 and 32.
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
