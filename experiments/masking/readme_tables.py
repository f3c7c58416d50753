"""The README's tables, from the rows of finished runs.

  python -m experiments.masking.readme_tables --study=gpu \
    --run=runs/masking_gpu --write

What a table needs is kept beside the README, so that it can be made again
without the run.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absl import app, flags

from experiments.common import readme_block
from experiments.masking import report, study
from experiments.masking.settings import CONTROL, FULL
from tanbr_jax.report import workdir as reporting

HERE = Path(__file__).parent
STUDIES = ("gpu", "ablations")
_STUDY = flags.DEFINE_enum("study", "gpu", STUDIES, "Which table.")
_ALWAYS = ("accuracy", "loss", "active", "distinct", "imbalance")
_ANATOMY = ("by_rank", "by_layer", "by_class", "active_by_task")


def collect_rows(folder: Path) -> dict[str, Any]:
  """What the tables need of a study's rows, rounded."""
  rows = reporting.read_json(folder / study.ROWS)
  return {key: _needed(key, row) for key, row in rows.items()}


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
  return round(value, 6)


def main(argv: Sequence[str]) -> None:
  """Makes the part of the README that `--study` names."""
  name = _STUDY.value
  readme_block.main(
    argv,
    name,
    HERE / f"{name}.json",
    collect=collect_rows,
    text=rows_text,
  )


if __name__ == "__main__":
  readme_block.define_flags("A finished run's folder.")
  app.run(main)
