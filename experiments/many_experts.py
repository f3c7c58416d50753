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

from absl import app

from experiments import play_streams
from experiments.common import launch, readme_block

RESULTS = launch.ROOT / "experiments" / "regret" / "many_experts.json"
NAME = "many_experts"  # Of the README's markers.
BASELINE = "uniform"


def collect(run: Path) -> dict[str, Any]:
  """Takes what the table needs from runs of `experiments.play_streams`.

  Args:
    run: a folder with runs below it.

  Returns:
    Rounds and seeds, and for each number of experts, stream and method the
    figures of `play_streams.figures`.

  Raises:
    ValueError: if there is no run, or runs differ in rounds or seeds.
  """
  found: dict[str, Any] = {}
  sizes = set()
  for result in play_streams.read(run):
    sizes.add((result["num_rounds"], result["num_seeds"]))
    experts = found.setdefault(str(result["num_experts"]), {})
    for stream, group in result["streams"].items():
      experts.setdefault(stream, {}).update(group)
  if len(sizes) != 1:
    raise ValueError(
      f"{run} must hold runs of the same rounds and seeds, got {sorted(sizes)}"
    )
  ((num_rounds, num_seeds),) = sizes
  return {"num_rounds": num_rounds, "num_seeds": num_seeds, "experts": found}


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
    "regret to the plain average's at any slot from "
    f"{play_streams.FIRST_SLOT} on."
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
