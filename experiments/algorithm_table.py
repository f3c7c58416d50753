"""The regret study's table of algorithms, from a run of all methods.

  python -m experiments.algorithm_table --run=runs/all_methods --write

With `--run`, what the table needs is taken from the run's folder and kept in
`experiments/regret/all_methods.json`; without, that file is used. Prints the
table; with `--write` also puts it between the markers of the README beside it.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import app

from experiments.common import launch, readme_block
from tanbr_jax.bandits.registry import CATALOGUE, TOLD, Entry
from tanbr_jax.report import workdir

RESULTS = launch.ROOT / "experiments" / "regret" / "all_methods.json"
NAME = "algorithms"  # Of the README's markers.
STREAMS = ("quadratic/drift", "network/drift")
_QUANTITIES = ("expected_regret", "slots_per_second")


def collect(run: Path) -> dict[str, Any]:
  """Takes what the table needs from a run of `configs/regret/all_methods.py`.

  Args:
    run: the folder.

  Returns:
    The run's rounds, seeds and device, and flat keys of its summary.

  Raises:
    ValueError: if the run is not finished or has not the table's streams.
  """
  for file in (workdir.CONFIG, workdir.SUMMARY):
    if not (run / file).exists():
      raise ValueError(f"{run} has no {file}: not a finished run")
  settings = workdir.read_json(run / workdir.CONFIG)
  summary = workdir.read_json(run / workdir.SUMMARY)
  kept = {
    key: value
    for key, value in summary.items()
    if key.startswith(tuple(f"{stream}/" for stream in STREAMS))
    and key.rpartition("/")[2].removesuffix("_low").removesuffix("_high")
    in _QUANTITIES
  }
  for stream in STREAMS:
    if not any(key.startswith(f"{stream}/") for key in kept):
      raise ValueError(f"{run} has no stream {stream!r}")
  config = settings["config"]
  return {
    "num_rounds": config["num_rounds"],
    "num_seeds": config["num_seeds"],
    "device": settings["device"],
    "summary": kept,
  }


def table(results: Mapping[str, Any]) -> str:
  """The table as Markdown, below its caption.

  Methods that are told less come first, then those of less regret.

  Args:
    results: see `collect`.
  """
  summary = results["summary"]
  names = sorted(
    CATALOGUE,
    key=lambda name: (
      TOLD.index(CATALOGUE[name].told),
      _regret(summary, name),
      name,
    ),
  )
  titles = [
    "algorithm",
    "paper",
    "is told",
    "needs",
    *(f"regret, {stream.replace('/', ', ')}" for stream in STREAMS),
    "rounds/s",
  ]
  lines = [_row(name, CATALOGUE[name], summary) for name in names]
  caption = (
    f"Expected regret after {results['num_rounds']:,} rounds, means of "
    f"{results['num_seeds']} seeds with 95 % intervals; rounds/s are of all "
    f"seeds together, environment included ({results['device']})."
  )
  return f"{caption}\n\n{readme_block.table(titles, lines)}"


def _regret(summary: Mapping[str, Any], name: str) -> float:
  """The key of a row's place: the sum of log regrets over the streams."""
  if name == "oracle":
    return -math.inf
  found = [summary.get(f"{s}/{name}/expected_regret") for s in STREAMS]
  if None in found:
    return math.inf
  return sum(math.log(max(value, 1e-9)) for value in found)


def _row(name: str, entry: Entry, summary: Mapping[str, Any]) -> list[str]:
  paper = f"{entry.source} {entry.year}" if entry.year else entry.source
  regrets = [
    "0 by definition" if name == "oracle" else _interval(summary, stream, name)
    for stream in STREAMS
  ]
  rates = [summary.get(f"{s}/{name}/slots_per_second") for s in STREAMS]
  rate = "-" if None in rates else f"{min(rates):,.0f}"
  needs = ", ".join(entry.needs) or "-"
  return [f"`{name}`", paper, entry.told, needs, *regrets, rate]


def _interval(summary: Mapping[str, Any], stream: str, name: str) -> str:
  key = f"{stream}/{name}/expected_regret"
  value, low, high = (summary.get(key + end) for end in ("", "_low", "_high"))
  if value is None:
    return "-"
  if low is None or high is None:
    return f"{value:,.0f}"
  return f"{value:,.0f} [{low:,.0f}, {high:,.0f}]"


def main(argv: Sequence[str]) -> None:
  readme_block.main(argv, NAME, RESULTS, collect=collect, text=table)


if __name__ == "__main__":
  readme_block.define_flags("Folder of a run of all methods.")
  app.run(main)
