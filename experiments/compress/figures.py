"""Figures of a run's summary."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from experiments.compress import merging_rows, merging_tables
from experiments.compress.stages import WHOLE
from tanbr_jax.plots import labels, parts

# Lines that can be told apart; what is left out lies close to one of them.
_DRAWN = (
  *("peu", "peu_no_threshold", "frequency", "reap", "easy_ep"),
  *("leave_one_out", "all_logits", "random"),
)
_SCOPES = {"specialist": "specialists", "generalist by tokens": "generalists"}
_RHO = {
  "rho": "specialists",
  "rho_per_token": "specialists, per token",
  "rho_generalist": "generalists",
}
_INCHES = 0.17  # of a row of dots


def effects(path: Path, summary: Mapping[str, Any]) -> None:
  """Accuracy of specialists and of generalists over the share that is cut."""
  methods = _names(summary, "methods/specialist/", 1)
  methods = [m for m in _DRAWN if m in methods] or [
    m for m in methods if not m.startswith("(")
  ]
  figure, axes = parts.make_grid(
    1, len(_SCOPES), height=2.8, num_labels=len(methods)
  )
  for one, (scope, title) in zip(axes[0], _SCOPES.items(), strict=True):
    sparsities = _names(summary, f"methods/{scope}/", 0)
    cut = sorted((s for s in sparsities if float(s) > 0), key=float)
    for index, method in enumerate(methods):
      keys = [f"methods/{scope}/{s}/{method}/accuracy_in_change" for s in cut]
      places = [100 * float(s) for s in cut]
      _line(one, summary, places, keys, index, method, factor=100)
    one.set_title(title)
    one.set_xlabel("experts cut, %")
    one.set_xticks([100 * float(s) for s in cut])
  axes[0, 0].set_ylabel("change of next-token accuracy\nin the domain, points")
  _legend(figure, axes[0, 0])
  parts.save(figure, path)


def truth(path: Path, summary: Mapping[str, Any]) -> None:
  """Every score's rank correlation with the truth."""
  value = lambda name: summary.get(f"truth/{name}/rho")  # noqa: E731
  methods = sorted(_names(summary, "truth/", 0), key=lambda m: value(m) or -1)
  figure, axes = parts.make_grid(
    1, 1, height=0.5 + _INCHES * len(methods), num_labels=len(_RHO)
  )
  for index, (key, label) in enumerate(_RHO.items()):
    keys = [f"truth/{method}/{key}" for method in methods]
    _dots(axes[0, 0], summary, keys, index, label)
  axes[0, 0].axvline(0, color="#4D4D4D", linewidth=0.8)
  axes[0, 0].set_yticks(range(len(methods)), methods)
  axes[0, 0].set_xlabel(
    "rank correlation of the score with the loss without the expert"
  )
  _legend(figure, axes[0, 0])
  parts.save(figure, path)


def samples(path: Path, summary: Mapping[str, Any]) -> None:
  """Accuracy of specialists over the calibration windows."""
  methods = _names(summary, "samples/", 0)
  figure, axes = parts.make_grid(1, 1, height=2.6, num_labels=len(methods))
  for index, method in enumerate(methods):
    counts = sorted(_names(summary, f"samples/{method}/", 0), key=int)
    keys = [f"samples/{method}/{count}/accuracy_in" for count in counts]
    _line(axes[0, 0], summary, list(map(int, counts)), keys, index, method)
  axes[0, 0].set_xscale("log")
  axes[0, 0].set_xlabel("calibration windows of a domain")
  axes[0, 0].set_ylabel("accuracy in the domain")
  _legend(figure, axes[0, 0])
  parts.save(figure, path)


def gaps(path: Path, summary: Mapping[str, Any]) -> None:
  """The gap of merged experts to the routed model, with every variant."""
  forms = (merging_rows.ONE, merging_rows.GROUPS)
  names = {
    form: [
      name
      for name in merging_tables.names(summary, form, merging_tables.VARIANTS)
      if name != WHOLE
    ]
    for form in forms
  }
  # One order of rows for both panels: that of the first form, then others.
  rows = list(dict.fromkeys(n for form in forms for n in names[form]))[::-1]
  figure, axes = parts.make_grid(
    1,
    len(forms),
    height=0.6 + _INCHES * len(rows),
    num_labels=len(merging_tables.VARIANTS),
    share_x=False,
  )
  for one, form in zip(axes[0], forms, strict=True):
    for index, variant in enumerate(merging_tables.VARIANTS):
      keys = [f"merging/{form}/{name}/{variant}/loss_change" for name in rows]
      _dots(one, summary, keys, index, variant)
    one.set_title(f"merged to {form}")
    one.set_xlabel("rise of the loss, nats a token")
    one.set_xscale("log")
    labels.plain_ticks(one.xaxis)
    one.set_ylim(-0.7, len(rows) - 0.3)
  axes[0, 0].set_yticks(range(len(rows)), rows)
  axes[0, 1].set_yticks(range(len(rows)), [""] * len(rows))
  _legend(figure, axes[0, 0])
  parts.save(figure, path)


# The file, what it needs of the summary, and what draws it.
FIGURES: Mapping[str, tuple[str, Callable[[Path, Mapping[str, Any]], None]]] = (
  MappingProxyType(
    {
      "effects.png": ("methods/", effects),
      "truth.png": ("truth/", truth),
      "samples.png": ("samples/", samples),
      "merging.png": ("merging/", gaps),
    }
  )
)


def _values(
  summary: Mapping[str, Any], keys: Sequence[str], end: str
) -> np.ndarray:
  """The values of keys with that ending, NaN where there is none."""
  found = [summary.get(key + end) for key in keys]
  return np.array([np.nan if v is None else v for v in found], np.float64)


def _line(
  axes: Axes,
  summary: Mapping[str, Any],
  places: Sequence[float],
  keys: Sequence[str],
  index: int,
  label: str,
  *,
  factor: float = 1,
) -> None:
  """A line with its band where there is an interval."""
  mean, low, high = (
    factor * _values(summary, keys, end) for end in ("", "_low", "_high")
  )
  style = parts.line_style(index)
  axes.plot(places, mean, label=label, marker=".", **style)
  axes.fill_between(places, low, high, color=style["color"], alpha=0.15, lw=0)


def _dots(
  axes: Axes,
  summary: Mapping[str, Any],
  keys: Sequence[str],
  index: int,
  label: str,
) -> None:
  """A dot in each row with its interval, a little apart from other labels'."""
  mean, low, high = (
    _values(summary, keys, end) for end in ("", "_low", "_high")
  )
  rows = np.arange(len(keys)) + 0.16 * (1 - index)
  color = parts.line_style(index)["color"]
  marker = "osD^"[index]
  axes.plot(mean, rows, marker, color=color, markersize=3.5, label=label)
  axes.hlines(rows, low, high, color=color, linewidth=1)


def _legend(figure: Any, axes: Axes) -> None:
  figure.legend(
    *axes.get_legend_handles_labels(),
    loc="outside lower center",
    ncols=parts.LEGEND_COLUMNS,
    frameon=False,
    fontsize=7,
  )


def _names(summary: Mapping[str, Any], prefix: str, skip: int) -> list[str]:
  """The names at a place of the keys after a prefix, in their order."""
  rests = [
    key[len(prefix) :].split("/") for key in summary if key.startswith(prefix)
  ]
  return list(dict.fromkeys(r[skip] for r in rests if len(r) > skip + 1))
