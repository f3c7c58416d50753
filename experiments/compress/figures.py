"""Figures of a run's summary."""

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from tanbr_jax.plots import parts


def effects(path: Path, summary: Mapping[str, Any]) -> None:
  """Loss of specialists and of generalists over the share that is cut."""
  scopes = {
    "specialist": "specialists",
    "generalist by tokens": "generalists",
  }
  methods = _names(summary, "methods/specialist/", 1)
  methods = [m for m in methods if not m.startswith("(")]
  figure, axes = parts.make_grid(
    1, len(scopes), height=3.2, num_labels=len(methods)
  )
  for one, (scope, title) in zip(axes[0], scopes.items(), strict=True):
    sparsities = _names(summary, f"methods/{scope}/", 0)
    cut = sorted((s for s in sparsities if float(s) > 0), key=float)
    for index, method in enumerate(methods):
      keys = [f"methods/{scope}/{s}/{method}/loss_in_change" for s in cut]
      _line(one, summary, [100 * float(s) for s in cut], keys, index, method)
    one.set_title(title)
    one.set_xlabel("experts cut, %")
    one.set_yscale("symlog", linthresh=0.01)
  axes[0, 0].set_ylabel("rise of the loss in the domain, nats a token")
  _legend(figure, axes[0, 0])
  parts.save(figure, path)


def truth(path: Path, summary: Mapping[str, Any]) -> None:
  """Every score's rank correlation with the truth, by layer."""
  methods = _names(summary, "truth/", 0)
  figure, axes = parts.make_grid(1, 1, height=3.2, num_labels=len(methods))
  layers = sorted(
    {
      name
      for method in methods
      for name in _names(summary, f"truth/{method}/", 0)
      if name.startswith("layer ")
    },
    key=lambda name: int(name.split()[1]),
  )
  for index, method in enumerate(methods):
    keys = [f"truth/{method}/{layer}/rho" for layer in layers]
    _line(axes[0, 0], summary, range(len(layers)), keys, index, method)
  axes[0, 0].axhline(0, color="#4D4D4D", linewidth=0.8)
  axes[0, 0].set_xticks(range(len(layers)))
  axes[0, 0].set_xlabel("layer")
  axes[0, 0].set_ylabel("rank correlation with the loss\nwithout the expert")
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


FIGURES: Mapping[str, Callable[[Path, Mapping[str, Any]], None]] = (
  MappingProxyType(
    {"effects.png": effects, "truth.png": truth, "samples.png": samples}
  )
)


def _line(
  axes: Any,
  summary: Mapping[str, Any],
  places: Any,
  keys: list[str],
  index: int,
  label: str,
) -> None:
  """A line with its band where there is an interval."""
  get = lambda end: np.array(  # noqa: E731
    [np.nan if (v := summary.get(key + end)) is None else v for key in keys],
    np.float64,
  )
  style = parts.line_style(index)
  axes.plot(places, get(""), label=label, marker=".", **style)
  axes.fill_between(
    places, get("_low"), get("_high"), color=style["color"], alpha=0.15, lw=0
  )


def _legend(figure: Any, axes: Any) -> None:
  handles, labels = axes.get_legend_handles_labels()
  figure.legend(
    handles,
    labels,
    loc="outside lower center",
    ncols=parts.LEGEND_COLUMNS,
    frameon=False,
    fontsize=7,
  )


def _names(summary: Mapping[str, Any], prefix: str, skip: int) -> list[str]:
  """The next parts of the keys that begin so, after some others."""
  found: dict[str, None] = {}
  for key in summary:
    if key.startswith(prefix):
      names = key.removeprefix(prefix).split("/")
      if len(names) > skip + 1:
        found[names[skip]] = None
  return list(found)
