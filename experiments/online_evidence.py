"""The tables and the figure of many streams, from the folders of their runs.

  python -m experiments.online_evidence --run=runs/evidence --write

With `--run`, the results are kept in `experiments/online/evidence.json`;
without, that file is used. Prints the tables; with `--write` also puts them
between the markers of the README beside it and draws `cost_regret.png` there.
See `experiments.online.evidence` for the names of the folders.
"""

from collections.abc import Sequence

from absl import app, flags

from experiments.common import launch, readme_block
from experiments.online import cost_figure, evidence
from tanbr_jax.plots import parts
from tanbr_jax.report import workdir

RESULTS = launch.ROOT / "experiments" / "online" / "evidence.json"
FIGURE = "cost_regret.png"
NAME = "evidence"  # Of the README's markers.


def main(argv: Sequence[str]) -> None:
  readme_block.main(
    argv, NAME, RESULTS, collect=evidence.collect, text=evidence.text
  )
  if flags.FLAGS.write:
    kept = workdir.read_json(RESULTS)
    if panels := evidence.panels(kept):
      figure = cost_figure.draw(panels, groups=list(evidence.TOLD))
      parts.save(figure, RESULTS.with_name(FIGURE))


if __name__ == "__main__":
  readme_block.define_flags("Folder with the runs' folders.")
  app.run(main)
