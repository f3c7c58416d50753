"""The regret study's table of many experts, from runs of one number each.

  python -m experiments.many_experts --run=runs/many_experts --write

With `--run`, what the table needs is taken from every run below the folder and
kept in `experiments/regret/many_experts.json`; without, that file is used.
Prints the table; with `--write` also puts it between the markers of the README
beside it.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from absl import app

from experiments.common import drawing, launch, readme_block
from tanbr_jax.online import regret, trace
from tanbr_jax.report import workdir

RESULTS = launch.ROOT / "experiments" / "regret" / "many_experts.json"
NAME = "many_experts"  # Of the README's markers.
BASELINE = "uniform"
# The regret of a few slots is too small to divide by.
FIRST_SLOT = 20


def collect(run: Path) -> dict[str, Any]:
  """Takes what the table needs from runs of configs/regret/many_experts.py.

  Args:
    run: a folder with runs below it.

  Returns:
    Rounds and seeds, and for each number of experts, stream and method the
    final regret and the largest ratio of regrets to the plain average's.

  Raises:
    ValueError: if there is no finished run, or runs differ in rounds or seeds.
  """
  found: dict[str, Any] = {}
  sizes = set()
  for path in sorted(run.rglob(workdir.TRACE)):
    config = workdir.read_json(path.with_name(workdir.CONFIG))["config"]
    sizes.add((config["num_rounds"], config["num_seeds"]))
    experts = found.setdefault(str(config["num_experts"]), {})
    for stream, group in drawing.by_stream(trace.load(path)).items():
      if BASELINE in group:
        experts.setdefault(stream, {}).update(_figures(group))
  if len(sizes) != 1:
    raise ValueError(
      f"{run} must hold finished runs of the same rounds and seeds, got "
      f"{sorted(sizes)}"
    )
  ((num_rounds, num_seeds),) = sizes
  return {"num_rounds": num_rounds, "num_seeds": num_seeds, "experts": found}


def _figures(group: Mapping[str, trace.Trace]) -> dict[str, dict[str, float]]:
  means = {
    method: np.mean(regret.expected(one), axis=0, dtype=np.float64)
    for method, one in group.items()
  }
  base = means[BASELINE]
  return {
    method: {
      "regret": float(mean[-1]),
      "worst": float(np.max((mean / base)[FIRST_SLOT - 1 :])),
    }
    for method, mean in means.items()
  }


def table(results: Mapping[str, Any]) -> str:
  """The table as Markdown, below its caption; see `collect`."""
  experts = results["experts"]
  methods = list(
    dict.fromkeys(
      method
      for streams in experts.values()
      for group in streams.values()
      for method in group
    )
  )
  methods.remove(BASELINE)
  lines = []
  streams = sorted({stream for group in experts.values() for stream in group})
  for stream in streams:
    for count in sorted(experts, key=int):
      if group := experts[count].get(stream):
        cells = [_cell(group, method) for method in methods]
        family, mix = stream.split("/")
        plain = f"{group[BASELINE]['regret']:.1f}"
        lines.append([family, mix, count, plain, *cells])
  titles = ["family", "mix", "E", "plain average", *map("`{}`".format, methods)]
  caption = (
    f"Expected regret after {results['num_rounds']:,} slots, means of "
    f"{results['num_seeds']} seeds; in brackets the largest ratio of the mean "
    f"regret to the plain average's at any slot from {FIRST_SLOT} on."
  )
  return f"{caption}\n\n{readme_block.table(titles, lines)}"


def _cell(group: Mapping[str, Mapping[str, float]], method: str) -> str:
  if method not in group:
    return "-"
  figures = group[method]
  return f"{figures['regret']:.1f} ({figures['worst']:.2f})"


def main(argv: Sequence[str]) -> None:
  readme_block.main(argv, NAME, RESULTS, collect=collect, text=table)


if __name__ == "__main__":
  readme_block.define_flags("Folder with runs of many_experts below it.")
  app.run(main)
