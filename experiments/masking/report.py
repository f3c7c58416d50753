"""The study's summary, its figure, and its tables in Markdown.

A name is `<family>__<setting>`: the rows of a family are one curve of accuracy
against active experts. At equal active experts a family's accuracy is that of
its curve, linear between its points and the full model's (or the control's).
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from experiments.common import readme_block
from experiments.masking.rivals import OF_BATCHES
from experiments.masking.settings import CONTROL, FULL
from tanbr_jax.online import estimates
from tanbr_jax.plots import parts
from tanbr_jax.report import workdir as reporting
from tanbr_jax.storage import atomic

TABLE = "table.md"
Rows = Mapping[str, Mapping[str, Any]]
_CLASSES = {
  "lower-case letter": range(ord("a"), ord("z") + 1),
  "capital": range(ord("A"), ord("Z") + 1),
  "digit": range(ord("0"), ord("9") + 1),
  "space": (ord(" "),),
  "line end": (ord("\n"),),
}


def family(name: str) -> str:
  """The part of a name before its setting."""
  return name.partition("__")[0]


def by_seed(rows: Rows) -> dict[str, dict[str, Mapping[str, Any]]]:
  """Rows by name and seed; names in their order."""
  found: dict[str, dict[str, Mapping[str, Any]]] = {}
  for key, row in rows.items():
    seed, _, name = key.partition("/")
    found.setdefault(name, {})[seed] = row
  return found


def by_class(active: np.ndarray, count: np.ndarray) -> dict[str, float]:
  """Active experts per byte of a class.

  Args:
    active: [256], summed over the bytes of a value.
    count: [256], how many they were.
  """
  classes = {name: list(values) for name, values in _CLASSES.items()}
  named = {value for values in classes.values() for value in values}
  classes["other"] = [value for value in range(256) if value not in named]
  return {
    name: float(active[values].sum() / max(count[values].sum(), 1))
    for name, values in classes.items()
  }


def difference_at_equal_active(
  rows: Rows, name: str, other: str
) -> estimates.Estimate | None:
  """Accuracy of `name` less that of family `other` at as many experts.

  Paired by seed. None where the family's curve does not reach so far.
  """
  found = by_seed(rows)
  differences = []
  for seed, row in found[name].items():
    points = [
      (one[seed]["active"], one[seed]["accuracy"])
      for key, one in found.items()
      if (family(key) == other or key == CONTROL) and seed in one
    ]
    active, accuracy = np.array(sorted(points)).T
    if not active[0] <= row["active"] <= active[-1]:
      return None
    there = np.interp(row["active"], active, accuracy)
    differences.append(row["accuracy"] - there)
  return estimates.mean(np.array(differences))


def summarise(rows: Rows) -> dict[str, float]:
  """Means over seeds with intervals, under `<name>/<quantity>`."""
  summary: dict[str, float] = {}
  found = by_seed(rows)
  for name, one in found.items():
    for quantity in ("accuracy", "loss", "active", "distinct", "imbalance"):
      values = np.array([row[quantity] for row in one.values()])
      summary |= reporting.estimate_entries(
        f"{name}/{quantity}", estimates.mean(values)
      )
    for reference in (FULL, CONTROL):
      kept = [
        100 * row["accuracy"] / found[reference][seed]["accuracy"]
        for seed, row in one.items()
        if seed in found.get(reference, {})
      ]
      if kept:
        summary |= reporting.estimate_entries(
          f"{name}/percent_of_{reference}", estimates.mean(np.array(kept))
        )
  return summary


def write(
  folder: str | os.PathLike[str], rows: Rows, figures: Mapping[str, float]
) -> None:
  """Writes the summary and the tables, and prints the tables."""
  summary = dict(figures) | summarise(rows)
  reporting.write_summary(folder, summary)
  tables = quality_table(summary), matched_table(rows), anatomy_table(rows)
  text = "\n\n".join(tables)
  atomic.write_text(Path(folder) / TABLE, text + "\n")
  print(text)


def quality_table(summary: Mapping[str, Any]) -> str:
  """A row a name: active experts, accuracy, what is kept, distinct experts."""
  names = dict.fromkeys(k.rpartition("/")[0] for k in summary if "/" in k)
  cell = lambda name, key, digits: _interval(  # noqa: E731
    summary, f"{name}/{key}", digits
  )
  lines = [
    [
      name,
      cell(name, "active", 2),
      cell(name, "accuracy", 4),
      cell(name, "loss", 4),
      cell(name, f"percent_of_{FULL}", 1),
      cell(name, f"percent_of_{CONTROL}", 1),
      cell(name, "distinct", 1),
    ]
    for name in names
  ]
  titles = [
    "method",
    "active experts",
    "accuracy",
    "loss",
    "% of full",
    "% of control",
    "distinct experts",
  ]
  return readme_block.table(titles, lines)


def matched_table(rows: Rows) -> str:
  """Points of accuracy above each family at as many active experts."""
  names = list(by_seed(rows))
  masked = [name for name in names if family(name).startswith("beam")]
  others = dict.fromkeys(
    family(name)
    for name in names
    if name not in (FULL, CONTROL)
    and name not in masked
    and not _of_batch(name)
  )
  lines = []
  for name in masked:
    cells = [name]
    for other in others:
      found = difference_at_equal_active(rows, name, other)
      cells.append("-" if found is None else _points(found))
    lines.append(cells)
  return readme_block.table(["points above, at equal active", *others], lines)


def anatomy_table(rows: Rows) -> str:
  """Where experts are kept: by rank, class of byte, task, layer; the balance.

  A column a masked model, and the control; means over seeds.
  """
  found = by_seed(rows)
  names = [
    name
    for name in found
    if name in (CONTROL, FULL) or family(name).startswith("beam")
  ]
  lines: dict[str, list[str]] = {}
  for name in names:
    one = list(found[name].values())
    cells: dict[str, float] = {}
    for key, title in (("by_rank", "rank"), ("by_layer", "layer")):
      for index, value in enumerate(np.mean([row[key] for row in one], axis=0)):
        cells[f"{title} {index + 1}"] = value
    for key in ("by_class", "active_by_task"):
      for title in one[0].get(key, {}):
        cells[title] = float(np.mean([row[key][title] for row in one]))
    cells["largest load, even is 1"] = float(
      np.mean([row["imbalance"] for row in one])
    )
    for title, value in cells.items():
      lines.setdefault(title, []).append(f"{value:.2f}")
  return readme_block.table(
    ["active experts of", *names],
    [[title, *cells] for title, cells in lines.items()],
  )


def draw(folder: str | os.PathLike[str], rows: Rows) -> None:
  """Writes `quality.png`: accuracy against active experts, by family.

  Choices of a whole batch are left out, which lower distinct experts instead.
  """
  figure: Figure
  figure, (axes,) = parts.make_figure(1, height=3.6)
  points: dict[str, list[tuple[float, float]]] = {}
  for name, one in by_seed(rows).items():
    if _of_batch(name):
      continue
    mean = lambda key, one=one: float(  # noqa: E731
      np.mean([row[key] for row in one.values()])
    )
    points.setdefault(family(name), []).append(
      (mean("active"), mean("accuracy"))
    )
  for index, (name, found) in enumerate(points.items()):
    active, accuracy = np.array(sorted(found)).T
    style = parts.line_style(index)
    axes.plot(active, accuracy, marker="o", markersize=3, label=name, **style)
  axes.set_xlabel("active experts per token")
  axes.set_ylabel("next-token accuracy")
  axes.legend(fontsize=6, ncols=2, loc="lower right")
  parts.save(figure, Path(folder) / "quality.png")


def _of_batch(name: str) -> bool:
  return name.startswith(OF_BATCHES)


def _interval(summary: Mapping[str, Any], key: str, digits: int) -> str:
  if summary.get(key) is None:
    return "-"
  text = f"{summary[key]:.{digits}f}"
  low, high = summary.get(f"{key}_low"), summary.get(f"{key}_high")
  if low is None or high is None or not np.isfinite([low, high]).all():
    return text
  return (
    text if low == high else f"{text} [{low:.{digits}f}, {high:.{digits}f}]"
  )


def _points(found: Sequence[float]) -> str:
  value, low, high = (100 * x for x in found)
  if not np.isfinite([low, high]).all():
    return f"{value:+.2f}"
  return f"{value:+.2f} [{low:+.2f}, {high:+.2f}]"
