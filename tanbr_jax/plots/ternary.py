"""The leaves of a tree over three experts as a ternary picture.

A point of the triangle is a weight vector: its distance from the side opposite
to a corner, over the triangle's height, is that expert's weight.
"""

from collections.abc import Sequence
from typing import NamedTuple

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure

from tanbr_jax.plots import labels, parts

_CORNERS = np.asarray([[0.0, 0.0], [1.0, 0.0], [0.5, np.sqrt(3) / 2]])
_TICKS = (0.25, 0.5, 0.75)
_BEST, _PLAYED = "#C00000", "#E69F00"


class TernaryPanel(NamedTuple):
  """A tree at one time.

  Attributes:
    title: of the panel.
    cells: corners [K, 3] of each leaf, K may differ.
    visits: [N] rounds that were played in each cell.
    played: [T, 3] weights that were played last.
    optimum: [3] the landscape's best weights.
    zoom: how many times to enlarge the surroundings of the optimum.
  """

  title: str
  cells: Sequence[np.ndarray]
  visits: np.ndarray
  played: np.ndarray
  optimum: np.ndarray
  zoom: float = 1.0


def ternary_tree(
  panels: Sequence[Sequence[TernaryPanel]], *, played_label: str
) -> Figure:
  """Cells coloured by visits, what was played, and the optimum.

  Args:
    panels: rows of panels, equally many in each.
    played_label: what the points are, for the legend.

  Returns:
    A figure whose panels share one colour scale.
  """
  figure, grid = parts.make_grid(
    len(panels), len(panels[0]), height=2.2, num_labels=2, share_x=False
  )
  most = max(panel.visits.max() for row in panels for panel in row)
  norm = LogNorm(1, max(2, most))
  for axes, panel in zip(
    grid.flat, (panel for row in panels for panel in row), strict=True
  ):
    areas = _draw_panel(axes, panel, norm, played_label)
  bar = figure.colorbar(areas, ax=grid, shrink=0.7, aspect=30, pad=0.02)
  label = "rounds played in the cell (log scale, white: none)"
  bar.set_label(label, fontsize=8)
  bar.ax.tick_params(labelsize=7)
  labels.add_shared_legend(figure)
  return figure


def to_plane(weights: np.ndarray) -> np.ndarray:
  """Points [..., 2] of the equilateral triangle of side 1."""
  return np.asarray(weights, np.float64) @ _CORNERS


def _draw_panel(
  axes: Axes, panel: TernaryPanel, norm: Normalize, played_label: str
) -> PolyCollection:
  colours = matplotlib.colormaps["Blues"].with_extremes(under="white")
  areas = PolyCollection(
    [to_plane(cell) for cell in panel.cells],
    array=np.maximum(panel.visits, 0.5),  # below the scale's least, 1: white
    norm=norm,
    cmap=colours,
    edgecolors="#666666",
    linewidths=0.35,
  )
  axes.add_collection(areas)
  axes.plot(
    *to_plane(panel.played).T,
    marker="o",
    markersize=2.5,
    linestyle="none",
    color=_PLAYED,
    markeredgecolor="white",
    markeredgewidth=0.2,
    label=played_label,
  )
  axes.plot(
    *to_plane(panel.optimum),
    marker="+",
    markersize=8,
    linestyle="none",
    markeredgecolor=_BEST,
    markeredgewidth=1.3,
    label="best weights",
  )
  axes.set_title(panel.title, fontsize=8)
  axes.set_aspect("equal")
  if panel.zoom > 1:
    _enlarge(axes, panel)
  else:
    _draw_frame(axes)
  return areas


def _enlarge(axes: Axes, panel: TernaryPanel) -> None:
  x, y = to_plane(panel.optimum)
  half = 0.5 / panel.zoom
  axes.set_xlim(x - half, x + half)
  axes.set_ylim(y - half, y + half)
  axes.set_xticks([])
  axes.set_yticks([])
  axes.spines[:].set_visible(True)


def _draw_frame(axes: Axes) -> None:
  """The triangle, its corners' names, and the weights along its sides."""
  axes.set_axis_off()
  axes.set_xlim(-0.14, 1.14)
  axes.set_ylim(-0.2, 0.97)
  outline = np.concatenate([_CORNERS, _CORNERS[:1]])
  axes.plot(*outline.T, color="black", linewidth=0.8)
  for place, name, shift, side in zip(
    _CORNERS,
    ("expert 1", "expert 2", "expert 3"),
    ((0, -0.1), (0, -0.1), (0, 0.03)),
    ("top", "top", "bottom"),
    strict=True,
  ):
    axes.text(*(place + shift), name, ha="center", va=side, fontsize=7)
  for expert in range(3):
    # The weight of an expert falls from 1 to 0 along the side that leads from
    # its corner to the next one.
    start, end = _CORNERS[expert], _CORNERS[(expert + 1) % 3]
    along = end - start
    outward = np.asarray([along[1], -along[0]])
    for weight in _TICKS:
      tick = weight * start + (1 - weight) * end
      axes.plot(*np.stack([tick, tick + 0.02 * outward]).T, "k-", linewidth=0.6)
      axes.text(
        *(tick + 0.07 * outward),
        f"{weight:g}".removeprefix("0"),
        fontsize=5,
        ha="center",
        va="center",
        color="#444444",
      )
