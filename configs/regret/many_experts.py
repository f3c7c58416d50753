"""Table: bandits on 8 to 256 experts against the plain average.

  for E in 8 16 32 64 128 192 256; do
    python -m experiments.play_streams --config=configs/regret/many_experts.py \
      --config.num_experts=$E --workdir=runs/many_experts/$E
  done
  python -m experiments.many_experts --run=runs/many_experts --write

On a CPU with `--config.loop=map`. Run time: on one core, for the two streams of
a family, four to seven minutes a learner with 8 or 32 experts (`lin_ucb` with
32 nine to twelve), seven with 64; with 16, whose features are products of all
pairs, more than 14. On one H200 with other work the eight streams of 64 experts
took five minutes a learner. With 16, 128 and more experts not run whole.
Expected: the table of experiments/regret/README.md.

Eight tasks throughout. The table's rows of other streams are of runs with
`--config.mixes=growing` or `--config.families=fitted`. Methods may be played in
folders of their own, with `--config.bandits`; the last line reads every run
below the folder that it is given.
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
