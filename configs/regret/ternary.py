"""Figure: the trees' leaves on the simplex of three experts.

  python -m experiments.ternary --config=configs/regret/ternary.py \
    --workdir=runs/ternary

Run time: about two minutes on two CPU cores, most of it compilation.
Expected: cells are small around the best weights (the cross) and large
elsewhere; at the end `tanbr` plays beside the cross, `tanbr_paper` only as near
as the representatives of its few cells are.
"""

import ml_collections

from configs.regret import quick


def get_config() -> ml_collections.ConfigDict:
  """Three experts, one landscape, one fixed mix, two times."""
  config = quick.get_config()
  config.num_experts = 3
  config.num_tasks = 3
  config.family = "quadratic"
  config.bandits = "tanbr,tanbr_paper"
  config.seed = 0
  # Rounds after which the tree is drawn; their greatest common divisor is the
  # length of a compiled stage.
  config.snapshots = (100, 3000)
  # Of the weights played before a snapshot, how many are drawn.
  config.num_points = 100
  # The last picture once more, enlarged around the best weights.
  config.zoom = 6.0
  for field in ("families", "mixes", "num_rounds", "num_seeds", "first_seed"):
    del config[field]
  for field in ("baseline", "chunk_size", "loop"):
    del config[field]
  return config
