"""Chooses every family's rates from trainings scored on validation text.

  python -m experiments.masking.choice --run=runs/masking_rates

Entries are `<family>__<setting>@<label>`, a label being one choice of rates. A
label's score is the mean over the family's settings of validation accuracy; the
families whose active experts no budget holds are compared at equal ones: less
the accuracy of masks there, on the line through the masks' and the control's
best points. `--run=a,b` reads several runs' rows together; `--flags_of` prints
the choice as flags for `--config=configs/masking/gpu.py:FAMILIES`.
"""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from absl import app, flags

from configs.masking import gpu, rates
from experiments.common import readme_block
from experiments.masking import report, study
from experiments.masking.settings import CONTROL
from tanbr_jax.report import workdir

MASKS = "beam_budget"
Scores = dict[str, dict[str, "Score"]]


class Score(NamedTuple):
  """Of a family with rates of one label; means over settings and seeds.

  Attributes:
    active: experts per token.
    accuracy: of the next token.
    above: accuracy less that of masks at as many active experts.
  """

  active: float
  accuracy: float
  above: float


def score(rows: report.Rows) -> Scores:
  """Scores by family and label.

  Raises:
    ValueError: there are no rows of masks or of the control.
  """
  points: dict[str, dict[str, list[tuple[float, float]]]] = {}
  for key, row in rows.items():
    name, has_label, label = key.partition("/")[2].partition("@")
    if has_label:
      labels = points.setdefault(report.family(name), {})
      point = (row["active"], row["accuracy"])
      labels.setdefault(label, []).append(point)
  if missing := [name for name in (CONTROL, MASKS) if name not in points]:
    raise ValueError(f"needs rows of {missing[0]}, got {sorted(points)}")
  line = []
  for name in (CONTROL, MASKS):
    line += max(points[name].values(), key=lambda x: np.mean(x, axis=0)[1])
  active, accuracy = np.array(sorted(line)).T
  found: Scores = {}
  for name, labels in points.items():
    found[name] = {}
    for label, chosen in labels.items():
      x, y = np.array(chosen).T
      above = np.mean(y - np.interp(x, active, accuracy))
      found[name][label] = Score(*map(float, (x.mean(), y.mean(), above)))
  return found


def choose(scores: Scores) -> dict[str, str]:
  """The best label of every family."""
  return {
    name: max(labels, key=lambda label, labels=labels: labels[label].above)
    for name, labels in scores.items()
  }


def table(scores: Scores) -> str:
  """A row a family: accuracy by label, the chosen one in bold."""
  best = choose(scores)
  labels = list(
    dict.fromkeys(label for one in scores.values() for label in one)
  )
  lines = []
  for name, one in scores.items():
    cells = [name]
    for label in labels:
      text = "-"
      if label in one:
        text = f"{one[label].accuracy:.4f} ({one[label].active:.2f})"
      cells.append(f"**{text}**" if label == best[name] else text)
    lines.append(cells)
  titles = [f"rates x {rates.SCALES[label]:g}" for label in labels]
  return readme_block.table(["family", *titles], lines)


def as_flags(best: Mapping[str, str], families: Sequence[str]) -> list[str]:
  """Flags that give these families of configs/masking/gpu.py their rates.

  Raises:
    ValueError: nothing was chosen for one of them.
  """
  found = []
  for name, entry in gpu.entries().items():
    if gpu.family(name) in families:
      family = gpu.LIKE.get(gpu.family(name), gpu.family(name))
      if family not in best:
        raise ValueError(f"needs rows of {family}, got those of {[*best]}")
      given = gpu.with_rates(entry, rates.SCALES[best[family]])
      found += [
        f"--config.tuned.{name}.{key}={given[key]}"
        for key in ("learning_rate", "added_learning_rate")
      ]
  return found


def read_rows(folders: str) -> dict[str, Any]:
  """The rows of several runs' folders, a comma list."""
  rows: dict[str, Any] = {}
  for folder in folders.split(","):
    rows |= workdir.read_json(Path(folder) / study.ROWS)
  return rows


def main(argv: Sequence[str]) -> None:
  """Prints the table, or the flags."""
  if len(argv) > 1:
    sys.exit(f"error: unknown arguments {argv[1:]}")
  try:
    scores = score(read_rows(flags.FLAGS.run))
    if flags.FLAGS.flags_of:
      print(" ".join(as_flags(choose(scores), flags.FLAGS.flags_of)))
    else:
      print(table(scores))
  except (ValueError, OSError) as error:
    sys.exit(f"error: {error}")


if __name__ == "__main__":
  flags.DEFINE_string("run", "", "Finished runs' folders, a comma list.")
  flags.DEFINE_list("flags_of", [], "Families to print flags of.")
  app.run(main)
