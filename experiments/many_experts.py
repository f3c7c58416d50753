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
_ORDER = ("multitask_ts", "tanbr", "lin_ucb")  # Others follow.
SIZES = ("num_experts", "num_rounds", "first_seed", "num_seeds")


def collect(run: Path) -> dict[str, Any]:
  """Takes what the table needs from runs of `experiments.play_streams`.

  Args:
    run: a folder with runs below it.

  Returns:
    A row for each stream, number of experts and of slots, and seeds, with the
    figures of every method (`play_streams.figures`).

  Raises:
    ValueError: if there is no run, or none of the baseline.
  """
  found: dict[tuple, dict[str, Any]] = {}
  for result in play_streams.read(run):
    sizes = tuple(result[size] for size in SIZES)
    for stream, group in result["streams"].items():
      found.setdefault((stream, *sizes), {}).update(group)
  if not found:
    raise ValueError(f"{run} holds no {play_streams.FILE}: no run is done")
  for key, methods in found.items():
    if BASELINE not in methods:
      raise ValueError(
        f"ratios are to {BASELINE}, which was not played on {key[0]} with "
        f"{dict(zip(SIZES, key[1:], strict=True))}"
      )
  return {
    "rows": [
      {**dict(zip(("stream", *SIZES), key, strict=True)), "methods": methods}
      for key, methods in sorted(found.items())
    ]
  }


def table(results: Mapping[str, Any]) -> str:
  """The table as Markdown, below its caption; see `collect`."""
  # Of a run that was stopped early the baseline alone may be there.
  rows = [row for row in results["rows"] if {*row["methods"]} != {BASELINE}]
  played = dict.fromkeys(name for row in rows for name in row["methods"])
  ordered = dict.fromkeys((*_ORDER, *played))
  methods = [name for name in ordered if name in played and name != BASELINE]
  lines = []
  for row in rows:
    family, mix = row["stream"].split("/")
    last = row["first_seed"] + row["num_seeds"] - 1
    sizes = (
      str(row["num_experts"]),
      f"{row['num_rounds']:,}",
      f"{row['first_seed']} to {last}",
    )
    plain = f"{row['methods'][BASELINE]['regret']:.1f}"
    cells = (_cell(row["methods"], method) for method in methods)
    lines.append([family, mix, *sizes, plain, *cells])
  titles = ["family", "mix", "E", "slots", "seeds", "plain average"]
  titles += map("`{}`".format, methods)
  caption = (
    "Expected regret, means over seeds; in brackets the largest ratio of the "
    "mean regret to the plain average's at any slot from "
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
