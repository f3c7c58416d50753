"""The README's table and figure of merging, of a run of the stage "merging".

  python -m experiments.compress.merging_readme --run=runs/merging --write

Keeps what they show in `merging.json` beside the README; without `--run` they
are made from it.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from absl import app, flags

from experiments.common import readme_block
from experiments.compress import figures, merging_rows, merging_tables, tables
from experiments.compress.merging_rows import ALIGNED, BOTH, PLAIN, SCALED
from experiments.compress.stages import WHOLE
from tanbr_jax.report import workdir as reporting

NAME = "merging"
_FORMS = (merging_rows.ONE, merging_rows.GROUPS)
# Columns of a form: title, variant, key, decimals.
_COLUMNS = (
  ("plain", PLAIN, "loss_change", 3),
  ("scaled", SCALED, "loss_change", 3),
  ("continued", PLAIN, "match", 2),
)
_INSTEAD = {PLAIN: ALIGNED, SCALED: BOTH}


def collect(run: Path) -> dict[str, Any]:
  """What the table shows, of a run's folder."""
  summary = merging_tables.entries(tables.load(run).get("merging", []))
  if not summary:
    raise ValueError(f"{run} holds no rows of the stage 'merging'")
  config = reporting.read_json(run / reporting.CONFIG)
  return {
    "summary": {
      key: None if value is None else float(f"{value:.5g}")
      for key, value in summary.items()
      if "accuracy" not in key
    },
    "seeds": len(list(run.glob("merging-*.json"))),
    "windows": config["config"]["calibration_windows"],
    "steps": config["config"]["merging"]["recovery_steps"],
    **{name: config[name] for name in ("versions", "device")},
  }


def to_markdown(kept: Mapping[str, Any]) -> str:
  """The table of both forms and that of training, with their circumstances."""
  summary = kept["summary"]
  whole = summary[f"merging/{merging_rows.ONE}/{WHOLE}/plain/loss"]
  head = (
    f"Calibrated on {kept['windows']} windows of every domain, in brackets "
    f"95 % intervals over {kept['seeds']} calibration seeds; {kept['steps']} "
    f"steps of training where there are any; the routed model's loss is "
    f"{whole:.3f} nats a token; jax {kept['versions']['jax']}, "
    f"{kept['device']}. {_alignment(summary)}"
  )
  parts = [
    head,
    _table(summary),
    *merging_tables.recovery(summary, tables.cell),
  ]
  return "\n\n".join(parts)


def _table(summary: Mapping[str, Any]) -> str:
  """A row for each method, with the columns of both forms."""
  found = {
    form: merging_tables.names(summary, form, merging_tables.VARIANTS)
    for form in _FORMS
  }
  names = dict.fromkeys(n for form in _FORMS[::-1] for n in found[form])
  lines = [
    [
      name,
      *(
        _cell(summary, form, name, variant, key, digits)
        for form in _FORMS
        for _, variant, key, digits in _COLUMNS
      ),
    ]
    for name in names
    if name != WHOLE
  ]
  titles = [
    f"{form}{merging_tables.bytes_left(summary, form)}: {title}"
    if place == 0
    else title
    for form in _FORMS
    for place, (title, *_) in enumerate(_COLUMNS)
  ]
  return readme_block.table(["method", *titles], lines)


def _cell(
  summary: Mapping[str, Any],
  form: str,
  name: str,
  variant: str,
  key: str,
  digits: int,
) -> str:
  """The variant's, or of methods that are always aligned the aligned one's."""
  place = f"merging/{form}/{name}"
  if f"{place}/{variant}/{key}" not in summary:
    variant = _INSTEAD[variant]
  whole = f"{place}/{variant}/{key}"
  if key == "match":
    summary = {whole: summary.get(whole)}
  return tables.cell(summary, whole, 1, digits)


def _alignment(summary: Mapping[str, Any]) -> str:
  """By how much alignment changes any method's loss."""
  changes = []
  for key, value in summary.items():
    first, *rest = key.split("/")
    if first == "merging" and rest[2:] == [ALIGNED, "loss"]:
      plain = summary.get("/".join([first, *rest[:2], PLAIN, "loss"]))
      if plain is not None and not rest[1].startswith("("):
        changes.append(abs(value - plain))
  if not changes:
    return ""
  return (
    "Aligning neurons first changes the loss of a method by at most "
    f"{max(changes):.3f}."
  )


def main(argv: list[str]) -> None:
  results = Path(__file__).with_name(f"{NAME}.json")
  readme_block.main(argv, NAME, results, collect=collect, text=to_markdown)
  if flags.FLAGS.write:
    summary = reporting.read_json(results)["summary"]
    figures.gaps(results.with_name(f"{NAME}.png"), summary)


if __name__ == "__main__":
  readme_block.define_flags("Folder of a finished run.")
  app.run(main)
