"""The README's tables of merging, of a run with the stage "merging".

  python -m experiments.compress.merging_readme --run=runs/merging --write

Keeps what they show in `merging.json` beside the README; without `--run` they
are made from that file.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import app

from experiments.common import readme_block
from experiments.compress import merging_rows, merging_tables, tables
from experiments.compress.stages import WHOLE
from tanbr_jax.report import workdir as reporting

NAME = "merging"
# Likelihood and generation: accuracy is in the run's own tables.
_EFFECTS = ("loss_change", "match")


def collect(run: Path) -> dict[str, Any]:
  """What the tables show, of a run's folder."""
  summary = merging_tables.entries(tables.load(run).get("merging", []))
  if not summary:
    raise ValueError(f"{run} holds no rows of the stage 'merging'")
  config = reporting.read_json(run / reporting.CONFIG)
  return {
    "summary": {k: v for k, v in summary.items() if "accuracy" not in k},
    "seeds": len(list(run.glob("merging-*.json"))),
    "windows": config["config"]["calibration_windows"],
    "steps": config["config"]["merging"]["recovery_steps"],
    **{name: config[name] for name in ("versions", "device")},
  }


def to_markdown(kept: Mapping[str, Any]) -> str:
  """All tables, with what they were measured with."""
  summary = kept["summary"]
  whole = summary[f"merging/{merging_rows.ONE}/{WHOLE}/plain/loss"]
  head = (
    f"Calibrated on {kept['windows']} windows of every domain, in brackets "
    f"95 % intervals over {kept['seeds']} calibration seeds; {kept['steps']} "
    f"steps of training where there are any; the routed model's loss is "
    f"{whole:.3f} nats a token; jax {kept['versions']['jax']}, "
    f"{kept['device']}."
  )
  made = merging_tables.parts(summary, tables.cell, effects=_EFFECTS)
  return "\n\n".join([head, *made])


def main(argv: Sequence[str]) -> None:
  results = Path(__file__).with_name(f"{NAME}.json")
  readme_block.main(argv, NAME, results, collect=collect, text=to_markdown)


if __name__ == "__main__":
  readme_block.define_flags("Folder of a finished run.")
  app.run(main)
