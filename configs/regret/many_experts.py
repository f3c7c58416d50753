"""Table: bandits on 8 to 256 experts against the plain average.

  for E in 8 16 32 64 128 192 256; do
    python -m experiments.regret --config=configs/regret/many_experts.py \
      --config.num_experts=$E --workdir=runs/many_experts/$E
  done
  python -m experiments.many_experts --run=runs/many_experts --write

Run time: for `multitask_ts` and `uniform` half a minute to a minute a stream on
one H200, most of it compilation; the other methods and the whole on CPU cores
were not run.
Expected: the table of experiments/regret/README.md. With 64 experts under drift
`multitask_ts` has 55.7 on the quadratic family where the plain average has
52.1, and 242 on the saturating one where it has 571.

Eight tasks throughout. Streams may be played in folders of their own, with
`--config.families` and `--config.mixes`; the last line reads every run below
the folder that it is given.
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
