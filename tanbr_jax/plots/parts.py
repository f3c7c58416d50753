"""The parts of a figure: style, bands over seeds, smoothed lines, areas.

Letters: S seeds, T rounds, N shares.
"""

import io
import math
import os
from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from tanbr_jax.online import estimates, regret
from tanbr_jax.online.trace import Trace
from tanbr_jax.plots.text import plain
from tanbr_jax.storage import atomic

# Okabe and Ito's colours, which the colour-blind tell apart; yellow, too faint
# for a line, is darkened.
PALETTE = (
  "#0072B2",
  "#D55E00",
  "#009E73",
  "#CC79A7",
  "#E69F00",
  "#56B4E9",
  "#B8A500",
  "#4D4D4D",
)
_LINES = ("-", "--", ":", "-.")
_HATCHES = ("", "////", "....")
_STYLE = {
  "font.size": 9,
  "axes.spines.top": False,
  "axes.spines.right": False,
  "axes.grid": True,
  "grid.color": "#e5e5e5",
  "grid.linewidth": 0.6,
  "lines.linewidth": 1.4,
  "axes.titlesize": 9,
  "figure.dpi": 200,
}
_WIDTH = 6.5  # inches, the text width of a one-column paper
LEGEND_COLUMNS = 4  # of a legend below a grid
_MAX_POINTS = 400
# With fewer seeds Student's interval is many times the range of the data.
_FEW_SEEDS = 5


def save(figure: Figure, path: str | os.PathLike[str]) -> None:
  """Writes a figure as PNG, atomically."""
  buffer = io.BytesIO()
  figure.savefig(buffer, format="png", dpi=200)
  atomic.write_bytes(path, buffer.getvalue())


def make_figure(
  num_axes: int, *, height: float, ratios: Sequence[float] = (1,)
) -> tuple[Figure, list[Axes]]:
  """A figure with axes below one another, and its axes."""
  with matplotlib.rc_context(_STYLE):
    figure = Figure(figsize=(_WIDTH, height), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(num_axes, 1, sharex=True, height_ratios=ratios)
    return figure, list(np.atleast_1d(axes))


def make_grid(
  num_rows: int,
  num_columns: int,
  *,
  height: float,
  num_labels: int,
  share_x: bool = True,
) -> tuple[Figure, np.ndarray]:
  """A figure with a grid of axes, and the axes [rows, columns].

  Args:
    num_rows: of axes.
    num_columns: of axes.
    height: of a row, in inches.
    num_labels: of the legend below, which gets room of its own.
    share_x: whether all axes have the same x range.
  """
  with matplotlib.rc_context(_STYLE):
    below = 0.2 + 0.16 * math.ceil(num_labels / LEGEND_COLUMNS)
    size = (_WIDTH, height * num_rows + below)
    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(num_rows, num_columns, sharex=share_x, squeeze=False)
    return figure, axes


def line_style(index: int) -> dict[str, str]:
  """Colour and dashes of the method with that index."""
  return {
    "color": PALETTE[index % len(PALETTE)],
    "linestyle": _LINES[index // len(PALETTE) % len(_LINES)],
  }


def thin(length: int, *, log: bool = False) -> np.ndarray:
  """Rounds, counted from 0, that are enough for a line."""
  if log:
    points = np.geomspace(1, length, _MAX_POINTS).astype(int) - 1
  else:
    points = np.linspace(0, length - 1, _MAX_POINTS).astype(int)
  return np.unique(points)


def band(
  axes: Axes,
  values: np.ndarray,
  index: int,
  label: str,
  *,
  first_round: int = 1,
  log: bool = False,
  faint: bool = False,
) -> None:
  """Mean over seeds of [S, T] and a band, see `over_seeds`.

  Args:
    axes: where to draw.
    values: [S, T].
    index: of the method, for its colour.
    label: of the line.
    first_round: of the values.
    log: whether the rounds are on a logarithmic axis.
    faint: whether the band is to be pale, where there are many.
  """
  rounds = thin(values.shape[1], log=log)
  if values.shape[0] < _FEW_SEEDS:
    kept = values[:, rounds]
    parts = np.stack([kept.mean(0), kept.min(0), kept.max(0)], axis=1)
  else:
    parts = np.asarray([estimates.mean(values[:, t]) for t in rounds])
  shown = rounds + first_round
  axes.plot(shown, parts[:, 0], label=plain(label), **line_style(index))
  if values.shape[0] > 1:
    color = line_style(index)["color"]
    alpha = 0.07 if faint else 0.2
    axes.fill_between(
      shown, parts[:, 1], parts[:, 2], color=color, alpha=alpha, linewidth=0
    )


def smooth_line(
  axes: Axes,
  values: np.ndarray,
  window: int,
  index: int | None,
  label: str,
  **style: str,
) -> None:
  """A moving average of [T] over the last `window` rounds."""
  window = min(window, values.size)
  smooth = trailing_mean(values[None], window)[0]
  if index is None:
    look = {"color": "black", "linestyle": "-", "linewidth": 0.8}
  else:
    look = line_style(index) | style
  kept = thin(smooth.size)
  axes.plot(kept + window, smooth[kept], label=plain(label), **look)


def trailing_mean(values: np.ndarray, window: int) -> np.ndarray:
  """Means of [S, T] over the last `window` rounds, [S, T - window + 1]."""
  sums = np.cumsum(values, axis=1, dtype=np.float64)
  sums = np.concatenate([np.zeros((values.shape[0], 1)), sums], axis=1)
  return (sums[:, window:] - sums[:, :-window]) / window


def stack(axes: Axes, shares: np.ndarray, names: Sequence[str]) -> None:
  """Shares [T, N] that add up to 1, as areas, thinned by means."""
  edges = np.append(thin(shares.shape[0]), shares.shape[0])
  means = np.asarray(
    [shares[a:b].mean(axis=0) for a, b in zip(edges, edges[1:], strict=False)]
  )
  areas = axes.stackplot(
    edges[:-1] + 1,
    means.T,
    labels=list(map(plain, names)),
    colors=[PALETTE[i % len(PALETTE)] for i in range(len(names))],
    linewidth=0,
  )
  for i, area in enumerate(areas):
    area.set_hatch(_HATCHES[i // len(PALETTE) % len(_HATCHES)])
  axes.set_ylim(0, 1)
  axes.set_xlim(1, shares.shape[0])
  axes.grid(False)


def largest(
  weights: np.ndarray, names: Sequence[str]
) -> tuple[np.ndarray, list[str]]:
  """At most eight shares: the seven largest and the sum of the others."""
  limit = len(PALETTE)
  if weights.shape[1] <= limit:
    return weights, list(names)
  order = np.argsort(-weights.mean(axis=0), kind="stable")
  kept = np.sort(order[: limit - 1])
  others = 1.0 - weights[:, kept].sum(axis=1, keepdims=True)
  shown = np.concatenate([weights[:, kept], np.maximum(others, 0.0)], axis=1)
  return shown, [*(names[i] for i in kept), "others"]


def numbered(kind: str, count: int) -> list[str]:
  """Names such as `expert 3`."""
  return [f"{kind} {i}" for i in range(count)]


def least_regret(traces: Mapping[str, Trace]) -> list[str]:
  """The methods, or of many the eight with the least expected regret."""
  finals = {name: regret.simple(one).mean() for name, one in traces.items()}
  return sorted(finals, key=finals.get)[: len(PALETTE)]


def over_seeds(num_seeds: int) -> str:
  """A title that says what the line and the band over seeds are."""
  if num_seeds == 1:
    return "one seed"
  if num_seeds < _FEW_SEEDS:
    return f"mean of {num_seeds} seeds, band from least to most"
  return f"mean of {num_seeds} seeds, 95 % interval"
