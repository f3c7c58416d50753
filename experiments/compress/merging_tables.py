"""Tables of the stage "merging", from its rows alone."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from experiments.common import readme_block
from experiments.compress import merging_rows
from experiments.compress.merging_rows import ALIGNED, BOTH, PLAIN, SCALED
from experiments.compress.stages import WHOLE
from tanbr_jax.online import estimates
from tanbr_jax.report import workdir as reporting

VARIANTS = (PLAIN, ALIGNED, SCALED, BOTH)
# Keys of a row: the title, a factor, decimals.
EFFECTS = {
  "loss_change": ("rise of the loss over the routed model's", 1, 3),
  "accuracy_change": ("accuracy points against the routed model's", 100, 1),
  "match": ("greedy continuation kept", 1, 3),
}
Cell = Callable[[Mapping[str, Any], str, float, int], str]


def entries(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
  """The summary's keys, with intervals over the seeds."""
  whole = {
    row["seed"]: row
    for row in rows
    if row["method"] == WHOLE and row["variant"] == PLAIN
  }
  values: dict[str, list[float]] = {}
  for row in rows:
    before = whole[row["seed"]]
    name = f"merging/{row['form']}/{row['method']}/{row['variant']}"
    changes = {
      f"{key}_change": row[key] - before[key] for key in ("loss", "accuracy")
    }
    for key in ("loss", "accuracy", "match", "expert_bytes"):
      if key in row:
        values.setdefault(f"{name}/{key}", []).append(row[key])
    for key, value in changes.items():
      values.setdefault(f"{name}/{key}", []).append(value)
  summary: dict[str, float] = {}
  for key, found in values.items():
    made = estimates.mean(np.array(found))
    summary |= reporting.estimate_entries(key, made)
  return summary


def parts(
  summary: Mapping[str, Any],
  cell: Cell,
  *,
  effects: Sequence[str] = tuple(EFFECTS),
) -> list[str]:
  """Titles and tables, in turns.

  Args:
    summary: flat, with the keys of `entries`.
    cell: makes the text of an estimate: (summary, key, factor, decimals).
    effects: keys of `EFFECTS`, a table each.
  """
  found = []
  for form in (merging_rows.ONE, merging_rows.GROUPS):
    methods = [m for m in names(summary, form, VARIANTS) if m != WHOLE]
    for key in effects:
      title, factor, digits = EFFECTS[key]
      lines = [
        [name]
        + [
          cell(summary, f"merging/{form}/{name}/{v}/{key}", factor, digits)
          for v in VARIANTS
        ]
        for name in methods
      ]
      lines = [line for line in lines if set(line[1:]) != {"-"}]
      if lines:
        size = bytes_left(summary, form)
        found += [
          f"**Experts merged to {form}{size}: {title}**",
          readme_block.table(["method", *VARIANTS], lines),
        ]
  return found + recovery(summary, cell)


def recovery(summary: Mapping[str, Any], cell: Cell) -> list[str]:
  """What a few steps of training give back."""
  variants = ("not trained", "trained: router", "trained: all")
  lines = []
  for form in (merging_rows.ONE, merging_rows.GROUPS):
    for name in names(summary, form, variants):
      cells = [
        cell(summary, f"merging/{form}/{name}/{v}/loss_change", 1, 3)
        for v in variants
      ]
      lines.append([name, "-" if name == WHOLE else form, *cells])
  if not lines:
    return []
  return [
    "**A few steps of training: rise of the loss over the routed model's**",
    readme_block.table(["method", "form", *variants], lines),
  ]


def names(
  summary: Mapping[str, Any], form: str, variants: Sequence[str]
) -> list[str]:
  """The methods of a form that have one of the variants, the best first."""
  best: dict[str, float] = {}
  for key, value in summary.items():
    first, *rest = key.split("/")
    if first != "merging" or len(rest) != 4 or rest[0] != form:
      continue
    _, name, variant, what = rest
    if variant in variants and what == "loss_change" and value is not None:
      best[name] = min(value, best.get(name, np.inf))
  return sorted(best, key=best.get)


def bytes_left(summary: Mapping[str, Any], form: str) -> str:
  """How much of the experts' bytes is left."""
  whole = f"merging/{merging_rows.ONE}/{WHOLE}/{PLAIN}/expert_bytes"
  sizes = {
    round(value)
    for key, value in summary.items()
    if key.startswith(f"merging/{form}/")
    and key.endswith("/expert_bytes")
    and WHOLE not in key
  }
  if whole not in summary or not sizes:
    return ""
  return f" ({max(sizes) / summary[whole]:.1%} of the experts' bytes)"
