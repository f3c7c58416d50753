"""Figure: the factor of the bonus in `tanbr`, the paper's gamma.

  python -m experiments.regret --config=configs/regret/ablation_tanbr.py \
    --workdir=runs/ablation_tanbr

Run time: four and a half minutes of one core for a family; all values are one
program (`config.together`), which a GPU plays in the time of one of them.
Expected: a minimum about the default; `quadratic/drift/exploration=3e-01/ratio`
is 1.45 [1.26, 1.67], without a bonus 2.89 [2.18, 3.83], and 1.78 [1.64, 1.95]
with 2.

How fast cells shrink (rho .3, .5 and .7 beside .9) and boxes in the place of
simplices are not in it: on that stream their ratios were between 1.00 [.98,
1.02] and 1.00 [.98, 1.03], as the score is ascended from wherever a leaf is.
`tanbr` has no network, hence no learning rate and no confidence matrix of one,
and learns the scales of its priors in the place of the paper's lambda.
"""

import ml_collections

from configs.regret import variants

OPTIONS = {"exploration": (0.0, 0.1, 0.3, 2.0, 4.0)}


def get_config() -> ml_collections.ConfigDict:
  """Five values and the default, .7."""
  return variants.of_options("tanbr", OPTIONS)
