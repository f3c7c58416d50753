"""Draws the regret of every method over what it costs a slot."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tanbr_jax.plots import labels, parts

# Label -> group, extra compute, (regret, low, high).
Points = Mapping[str, tuple[str, float, Sequence[float]]]
# What is nearer to free than this is drawn here, and regret below this there.
LEAST_COST, LEAST_REGRET = 0.003, 1.0


def draw(panels: Mapping[str, Points], *, groups: Sequence[str]) -> Figure:
  """A panel a device, logarithmic axes, a colour a group.

  Args:
    panels: title -> points.
    groups: in the order of the legend.
  """
  figure, grid = parts.make_grid(
    len(panels), 1, height=3.6, num_labels=len(groups)
  )
  for axes, (title, points) in zip(grid[:, 0], panels.items(), strict=True):
    _draw_panel(axes, points, groups)
    axes.set_title(title, loc="left", fontsize="small")
    axes.set_ylabel("regret, 95 % interval")
  grid[-1, 0].set_xlabel("extra compute a slot (merged slots)")
  labels.add_shared_legend(figure)
  return figure


def _draw_panel(axes: Axes, points: Points, groups: Sequence[str]) -> None:
  for index, group in enumerate(groups):
    chosen = [one for one in points.values() if one[0] == group]
    if chosen:
      cost = [max(one[1], LEAST_COST) for one in chosen]
      value, low, high = np.maximum([one[2] for one in chosen], LEAST_REGRET).T
      axes.errorbar(
        cost,
        value,
        yerr=[value - low, high - value],
        fmt="o",
        markersize=3.5,
        linewidth=1.0,
        color=parts.PALETTE[index],
        label=group,
      )
  axes.set_xscale("log")
  axes.set_yscale("log")
  left, right = axes.get_xlim()
  axes.set_xlim(left, right * 4)  # room for the last labels
  places = [
    (label, max(one[1], LEAST_COST), max(one[2][0], LEAST_REGRET))
    for label, one in points.items()
  ]
  for label, cost, place, shown in _spread(axes, places):
    arrow = {"arrowstyle": "-", "linewidth": 0.3, "color": "grey"}
    axes.annotate(
      label,
      (cost, place),
      xytext=(cost * 1.15, shown),
      fontsize=6,
      va="center",
      arrowprops=None if shown == place else arrow,
    )
  labels.plain_ticks(axes.yaxis)


def _spread(
  axes: Axes, places: list[tuple[str, float, float]]
) -> list[tuple[str, float, float, float]]:
  """Heights for the labels, such that none of near costs touch.

  From below, each label is lifted to a line above those it would lie on.
  """
  low, high = np.log(axes.get_ylim())
  left, right = np.log(axes.get_xlim())
  line, width = (high - low) / 28, (right - left) / 4
  taken: list[tuple[float, float]] = []
  found = []
  for label, cost, regret in sorted(places, key=lambda place: place[2]):
    height = first = np.log(regret)
    for other, at in sorted(taken, key=lambda pair: pair[1]):
      is_near = abs(other - np.log(cost)) < width
      if is_near and abs(at - height) < line:
        height = at + line
    taken.append((float(np.log(cost)), height))
    shown = regret if height == first else float(np.exp(height))
    found.append((label, cost, regret, shown))
  return found
