"""Figures of what one choice does: ablations, sweeps, latencies.

Every point is an `Estimate`, or anything else of value, low and high.
"""

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tanbr_jax.online.estimates import Estimate
from tanbr_jax.plots import labels as plot_labels
from tanbr_jax.plots import parts
from tanbr_jax.plots.text import plain

# The name of a series that sums up the others.
POOLED = "all"
Series = Mapping[float, Estimate]
_POOLED_STYLE = {"color": "black", "linestyle": "-", "linewidth": 2.0}


def ablation_bars(
  ratios: Mapping[str, Mapping[str, Estimate]],
  *,
  reference: str,
  unit: str = "expected regret",
) -> Figure:
  """A row a variant: its ratio to the reference in each stream and over all.

  Args:
    ratios: variant -> stream -> geometric-mean ratio with its interval; the
      stream `POOLED` is drawn black and large. The reference itself is 1.
    reference: the variant that the ratios divide by.
    unit: what the ratio is of.
  """
  streams = list(dict.fromkeys(s for row in ratios.values() for s in row))
  streams = [s for s in streams if s != POOLED] + [POOLED] * (
    any(POOLED in row for row in ratios.values())
  )
  # A row a method, in which the streams lie one above the other.
  height = max(2.0, 0.9 + len(ratios) * max(0.3, 0.09 * len(streams)))
  figure, (axes,) = parts.make_figure(1, height=height)
  offsets = np.linspace(-0.3, 0.3, len(streams)) if len(streams) > 1 else [0.0]
  for index, (stream, offset) in enumerate(zip(streams, offsets, strict=True)):
    rows = [i for i, row in enumerate(ratios.values()) if stream in row]
    found = [row[stream] for row in ratios.values() if stream in row]
    look = _marker(index, stream)
    axes.errorbar(
      [one.value for one in found],
      np.asarray(rows) + offset,
      xerr=_errors(found),
      label=_series_label(stream),
      **look | {"linestyle": "none"},
    )
  # The reference at 1, and the names.
  axes.axvline(1.0, color="black", linewidth=0.8, linestyle=":")
  axes.set_xscale("log")
  axes.set_yticks(range(len(ratios)), list(map(plain, ratios)))
  axes.set_ylim(len(ratios) - 0.5, -0.5)
  plot_labels.plain_ticks(axes.xaxis)
  axes.set_xlabel(f"{unit}, ratio to {plain(reference)} (log scale)")
  axes.set_title(
    "geometric mean over paired seeds, 95 % interval",
    loc="left",
    fontsize="small",
  )
  plot_labels.add_legend(axes)
  return figure


def sweep(
  series: Mapping[str, Series],
  *,
  x_label: str,
  y_label: str,
  title: str,
  reference: float | None = None,
) -> Figure:
  """Lines with intervals over one number that was varied, on log axes.

  Args:
    series: label -> value of the number -> estimate; `POOLED` is drawn black.
    x_label: the number's name.
    y_label: what the estimates are of.
    title: what the points and the intervals are.
    reference: a value of y that gets a dotted line.
  """
  height = max(3.0, plot_labels.legend_height(len(series)))
  figure, (axes,) = parts.make_figure(1, height=height)
  draw_series(axes, series)
  if reference is not None:
    axes.axhline(reference, color="black", linewidth=0.8, linestyle=":")
  axes.set_xlabel(x_label)
  axes.set_ylabel(y_label)
  axes.set_title(title, loc="left", fontsize="small")
  plot_labels.add_legend(axes)
  return figure


def latency(
  panels: Mapping[str, Mapping[str, Series]],
  *,
  target: float | None = None,
) -> Figure:
  """Decision latencies on log-log axes, a panel a number that was varied.

  Args:
    panels: the number's name -> method -> its value -> median and quartiles in
      milliseconds.
    target: milliseconds that get a dotted line.
  """
  figure, grid = parts.make_grid(
    1,
    len(panels),
    height=2.8,
    num_labels=1 + max(len(series) for series in panels.values()),
    share_x=False,
  )
  for axes, (name, series) in zip(grid[0], panels.items(), strict=True):
    draw_series(axes, series)
    axes.set_xlabel(name)
    if target is not None:
      axes.axhline(
        target,
        color="black",
        linewidth=0.8,
        linestyle=":",
        label=f"{target:g} ms",
      )
  grid[0, 0].set_ylabel("latency of one decision\n(ms, median and quartiles)")
  plot_labels.add_shared_legend(figure)
  return figure


def draw_series(axes: Axes, series: Mapping[str, Series]) -> None:
  """Lines with error bars; an axis is linear if its numbers are near or 0."""
  for index, (label, points) in enumerate(series.items()):
    values = sorted(points)
    found = [points[value] for value in values]
    look = _marker(index, label)
    if label != POOLED:
      look |= parts.line_style(index)
    axes.errorbar(
      values,
      [one.value for one in found],
      yerr=_errors(found),
      label=_series_label(label),
      **look,
    )
  varied = sorted({value for points in series.values() for value in points})
  if varied[0] > 0 and varied[-1] >= 4 * varied[0]:
    axes.set_xscale("log")
  axes.set_yscale("log")
  labels = [f"{value:g}" for value in varied]
  axes.set_xticks(varied, labels, minor=False, fontsize=7)
  axes.minorticks_off()
  axes.yaxis.minorticks_on()
  plot_labels.plain_ticks(axes.yaxis)


def _series_label(name: str) -> str:
  return "all streams" if name == POOLED else plain(name.replace("/", ", "))


def _marker(index: int, label: str) -> dict:
  if label == POOLED:
    return _POOLED_STYLE | {"marker": "D", "markersize": 5, "zorder": 5}
  return {
    "color": parts.line_style(index)["color"],
    "marker": "o",
    "markersize": 3.5,
    "linewidth": 1.0,
  }


def _errors(found: list[Estimate]) -> np.ndarray:
  """Lengths [2, N] of the error bars; none where there is no interval."""
  ends = np.asarray(
    [(one.value - one.low, one.high - one.value) for one in found], float
  )
  return np.nan_to_num(np.maximum(ends, 0.0)).T.reshape(2, -1)
