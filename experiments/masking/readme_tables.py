"""The README's tables, from the rows of finished runs.

  python -m experiments.masking.readme_tables --study=gpu \
    --run=runs/masking_gpu --write

What a table needs is kept beside the README, so that it can be made again
without the run. Of a study that several processes ran in parts, `--run` names
all folders, a comma list. `--write` also draws the study's figure.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absl import app, flags

from experiments.common import readme_block
from experiments.masking import choice, report, timing
from experiments.masking.settings import CONTROL, FULL
from tanbr_jax.report import workdir as reporting
from tanbr_jax.report.workdir import SUMMARY

HERE = Path(__file__).parent
TIMINGS = ("timing", "timing_cpu")
RATES = ("gpu_rates", "small_rates")
STUDIES = ("gpu", "ablations", "small", *RATES, *TIMINGS)
_DRAWN = ("gpu", "small")
_STUDY = flags.DEFINE_enum("study", "gpu", STUDIES, "Which table.")
_ALWAYS = ("on", "accuracy", "loss", "active", "distinct", "imbalance")
_ANATOMY = ("by_rank", "by_layer", "by_class", "active_by_task")


def collect_rows(folders: Path) -> dict[str, Any]:
  """What the tables need of a study's rows, rounded."""
  rows = choice.read_rows(str(folders))
  return {key: _needed(key, row) for key, row in rows.items()}


def collect_times(folders: Path) -> dict[str, Any]:
  """The summaries of timings, one after the other.

  Raises:
    ValueError: if they are of different devices.
  """
  found: dict[str, Any] = {}
  for folder in str(folders).split(","):
    for key, value in reporting.read_json(Path(folder) / SUMMARY).items():
      if isinstance(value, str) and found.get(key, value) != value:
        raise ValueError(
          f"timings must have one {key}, got {found[key]!r} and, in {folder}, "
          f"{value!r}"
        )
      found[key] = value if isinstance(value, str) else round(value, 3)
  return found


def times_text(summary: dict[str, Any]) -> str:
  """A table a model."""
  names = dict.fromkeys(key.split("/")[0] for key in summary if "/" in key)
  return "\n\n".join(timing.table(name, summary) for name in names)


def rates_text(rows: dict[str, Any]) -> str:
  """Accuracy on validation text by rates."""
  return choice.table(choice.score(rows))


def rows_text(rows: dict[str, Any]) -> str:
  """Quality, differences at equal active experts, and where masks keep them."""
  tables = [report.quality_table(report.summarise(rows))]
  if any("__" in key for key in rows):
    tables.append(report.matched_table(rows))
  tables.append(report.anatomy_table(rows))
  return "\n\n".join(tables)


def _needed(key: str, row: dict[str, Any]) -> dict[str, Any]:
  name = key.partition("/")[2]
  is_shown = name in (CONTROL, FULL) or report.family(name).startswith("beam")
  kept = _ALWAYS + (_ANATOMY if is_shown else ())
  return {k: _rounded(row[k]) for k in kept if k in row}


def _rounded(value: Any) -> Any:
  if isinstance(value, dict):
    return {key: _rounded(one) for key, one in value.items()}
  if isinstance(value, list):
    return [_rounded(one) for one in value]
  return value if isinstance(value, str) else round(value, 6)


def main(argv: Sequence[str]) -> None:
  """Makes the part of the README that `--study` names."""
  name = _STUDY.value
  collect, text = collect_rows, rows_text
  if name in TIMINGS:
    collect, text = collect_times, times_text
  elif name in RATES:
    text = rates_text
  results = HERE / f"{name}.json"
  readme_block.main(argv, name, results, collect=collect, text=text)
  if flags.FLAGS.write and name in _DRAWN:
    report.draw(HERE / f"{name}_quality.png", reporting.read_json(results))


if __name__ == "__main__":
  readme_block.define_flags("A finished run's folder.")
  app.run(main)
