"""The study's summary, its figure, and its tables in Markdown.

A name is `<family>__<setting>`: the rows of a family are one curve of accuracy
against active experts. At equal active experts a family's accuracy is that of
its curve, linear between its points and the control's; below its first point it
is that point's, which has more active experts.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

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
# Names in the figure: budgets and betas are one curve.
_MASKS = "masks (BEAM)"
_DRAWN_AS = {"beam_budget": _MASKS, "beam_beta": _MASKS}
_MARKERS = "osD^vPX*"
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


class Point(NamedTuple):
  """Of a figure: means over seeds, and the range of accuracy."""

  active: float
  accuracy: float
  least: float
  most: float


class Difference(NamedTuple):
  """Of one method's accuracy and a family's, paired by seed.

  Attributes:
    points: mean and interval.
    is_reached: whether the family's curve reaches down to as few active
      experts with every seed; if not, the family has more of them.
  """

  points: estimates.Estimate
  is_reached: bool


def difference_at_equal_active(
  rows: Rows, name: str, other: str
) -> Difference | None:
  """Accuracy of `name` less that of family `other` at as many experts.

  None if they share no seed.
  """
  found = by_seed(rows)
  differences, is_reached = [], True
  for seed, row in found[name].items():
    own = [
      (one[seed]["active"], one[seed]["accuracy"])
      for key, one in found.items()
      if family(key) == other and seed in one
    ]
    if not own:
      continue
    if seed in found.get(CONTROL, {}):
      control = found[CONTROL][seed]
      own.append((control["active"], control["accuracy"]))
    active, accuracy = np.array(sorted(own)).T
    is_reached &= bool(active[0] <= row["active"])
    there = np.interp(row["active"], active, accuracy)
    differences.append(row["accuracy"] - there)
  if not differences:
    return None
  return Difference(estimates.mean(np.array(differences)), is_reached)


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
  """Points of accuracy above each family at as many active experts.

  With a star where the family has none so few: there it has more.
  """
  names = list(by_seed(rows))
  masked = [name for name in names if family(name).startswith("beam")]
  others = dict.fromkeys(
    family(name)
    for name in names
    if name not in (FULL, CONTROL, *masked) and not _of_batch(name)
  )
  lines = []
  for name in masked:
    cells = [name]
    for other in others:
      found = difference_at_equal_active(rows, name, other)
      if found is None:
        cells.append("-")
      else:
        cells.append(_points(found.points) + ("" if found.is_reached else " *"))
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
  lines: dict[str, dict[str, str]] = {}
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
      lines.setdefault(title, {})[name] = f"{value:.2f}"
  return readme_block.table(
    ["active experts of", *names],
    [
      [title, *(cells.get(name, "-") for name in names)]
      for title, cells in lines.items()
    ],
  )


def draw(path: str | os.PathLike[str], rows: Rows) -> None:
  """Draws accuracy against active experts, by family, as PNG.

  On the left what is put on the control, on the right what is trained; bars
  reach from the least to the largest seed. Choices of a whole batch are left
  out, which lower distinct experts instead.
  """
  figure: Figure
  found = by_seed(rows)
  free: dict[str, list[Point]] = {}
  trained: dict[str, list[Point]] = {}
  for name, one in found.items():
    title = _DRAWN_AS.get(family(name), family(name))
    if name in (FULL, CONTROL) or _of_batch(name):
      continue
    is_free = "on" in next(iter(one.values()))
    side = free if is_free else trained
    side.setdefault(title, []).append(_point(one))
  sides = {"trained": trained}
  if free:
    masks = {_MASKS: trained[_MASKS]} if _MASKS in trained else {}
    sides = {"without training, on the control": masks | free}
    # Masks alone are on the left already.
    if {*trained} - {_MASKS}:
      sides["trained"] = trained
  figure, (axes,) = parts.make_grid(1, len(sides), height=3.6, num_labels=0)
  # Masks have one colour on both sides, and no other method has it.
  for side, (title, curves) in zip(axes, sides.items(), strict=True):
    for name, style in ((FULL, ":"), (CONTROL, "-")):
      if name in found:
        level = _point(found[name]).accuracy
        side.axhline(level, color="#999999", linestyle=style, label=name)
    names = [_MASKS, *(name for name in curves if name != _MASKS)]
    for index, name in enumerate(names):
      points = np.array(sorted(curves.get(name, [])))
      if not points.size:
        continue
      active, accuracy, least, most = points.T
      side.errorbar(
        active,
        accuracy,
        # A mean may be a rounding error past what it is the mean of.
        yerr=np.maximum((accuracy - least, most - accuracy), 0),
        marker=_MARKERS[index % len(_MARKERS)],
        markersize=3.5,
        linewidth=1,
        label=name,
        **parts.line_style(index),
      )
    side.set_xlabel("active experts per token")
    side.set_title(title, loc="left", fontsize="small")
    side.legend(fontsize=6, loc="lower right")
  axes[0].set_ylabel("next-token accuracy")
  limits = [side.get_ylim() for side in axes]
  for side in axes:
    side.set_ylim(min(low for low, _ in limits), max(top for _, top in limits))
  parts.save(figure, path)


def _point(one: Mapping[str, Mapping[str, Any]]) -> Point:
  """Of a row of each seed."""
  accuracy = [row["accuracy"] for row in one.values()]
  return Point(
    active=float(np.mean([row["active"] for row in one.values()])),
    accuracy=float(np.mean(accuracy)),
    least=min(accuracy),
    most=max(accuracy),
  )


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
