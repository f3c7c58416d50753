"""Figure: regret against the number of experts, 4 to 192.

  python -m experiments.regret --config=configs/regret/ablation_experts.py \
    --workdir=runs/ablation_experts

Eight tasks throughout. Above 16 experts `tanbr` leaves its quadratic features
out, and the linear baseline is LinUCB on linear features for every E: quadratic
ones would be 18,528 at E = 192.
Run time: about a minute of one CPU core for each value and family; not run at
full length yet: what is expected is a prediction.
Expected: the landscapes become flatter as E grows, hence ratios to `uniform`;
they rise with E, those of `tanbr` more slowly than `tanbr_paper`'s: for one
size of cells their number is exponential in E.
"""

import ml_collections

from configs.regret import curves

EXPERTS = (4, 8, 16, 32, 64, 128, 192)


def get_config() -> ml_collections.ConfigDict:
  """Two families whose optimum is in closed form, 2,000 rounds."""
  config = curves.get_config()
  config.num_rounds = 2000
  config.families = "quadratic,saturating"
  config.mixes = "drift"
  config.methods.lin_ucb_linear = {"bandit": "lin_ucb", "features": "linear"}
  config.bandits = (
    "tanbr,multitask_ts,tanbr_paper,neural_ucb,lin_ucb_linear,uniform"
  )
  config.settings = ml_collections.ConfigDict(
    {f"E={count}": {"num_experts": count} for count in EXPERTS}
  )
  config.baseline = "uniform"
  config.figures = "settings"
  config.varied = "num_experts"
  return config
