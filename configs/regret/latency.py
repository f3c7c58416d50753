"""Figure: latency of one decision against experts and against leaves.

  python -m experiments.decision_latency --config=configs/regret/latency.py \
    --workdir=runs/latency

Run time: about ten seconds a point, most of it compilation; use an otherwise
idle machine.
Expected: the table of experiments/bandit_speed/README.md; the paper states less
than 0.4 ms with 192 experts and 20 leaves, `tanbr` took .48 ms on an H100 where
a call that adds one number took .19.
"""

import ml_collections

from configs.regret import quick


def get_config() -> ml_collections.ConfigDict:
  """4 to 192 experts with 20 leaves, and 20 to 1,024 leaves with 8."""
  config = ml_collections.ConfigDict()
  config.num_experts = 8
  config.num_tasks = quick.get_config().num_tasks
  config.experts_swept = (4, 8, 16, 32, 64, 128, 192)
  config.sizes_swept = (20, 64, 256, 1024)
  config.default_size = 20
  # Methods of one's own, as in the other configs.
  config.methods = ml_collections.ConfigDict(
    {
      "tanbr without ascent": {
        "bandit": "tanbr",
        "num_ascent_steps": 0,
        "num_fresh": 0,
      },
      "linear lin_ucb": {"bandit": "lin_ucb", "features": "linear"},
    }
  )
  # Method -> the option that counts its leaves or candidates; "" for a method
  # whose candidates are its own affair: it is only measured over experts.
  config.sizes = ml_collections.ConfigDict(
    {
      "tanbr": "capacity",
      "tanbr without ascent": "capacity",
      "tanbr_paper": "capacity",
      "multitask_ts": "num_candidates",
      "neural_ucb": "num_candidates",
      "linear lin_ucb": "num_candidates",
    }
  )
  config.repeats = 500
  # Milliseconds that the paper states, a line in the figure.
  config.target_ms = 0.4
  return config
