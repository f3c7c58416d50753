"""Table: bandits on 8 to 256 experts against the plain average.

  for E in 8 16 32 64 128 192 256; do
    python -m experiments.play_streams --config=configs/regret/many_experts.py \
      --config.num_experts=$E --workdir=runs/many_experts/$E
  done
  python -m experiments.many_experts --run=runs/many_experts --write

On a CPU with `--config.loop=map`. Run time: on one core nine minutes for
`lin_ucb` on 8 experts and nine streams; a minute or two for `multitask_ts` on
32 or 64 experts, two streams, 4 seeds and 2,000 slots. Not run whole.
Expected: the table of experiments/regret/README.md.

Eight tasks throughout. Methods may be played in folders of their own, with
`--config.bandits`; the last line reads every run below the folder that it is
given.
"""

import ml_collections

from configs.regret import curves


def get_config() -> ml_collections.ConfigDict:
  """Four families under mixes that drift and that jump, 16 seeds."""
  config = curves.get_config()
  config.families = "quadratic,saturating,linear_contextual,cosine"
  config.mixes = "drift,piecewise"
  config.bandits = "multitask_ts,tanbr,lin_ucb,random,uniform"
  config.baseline = "uniform"
  return config
