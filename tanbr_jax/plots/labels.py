"""Legends outside the data, and ticks that can be read.

With many methods a legend is as much of a figure as its lines.
"""

from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from tanbr_jax.plots import parts


def legend_height(num_labels: int) -> float:
  """Inches that a legend of that many lines needs, title excluded."""
  return 0.6 + 0.165 * num_labels


def plain_ticks(axis: Axis) -> None:
  """Ticks of a logarithmic axis as 0.2, 1, 5 where it spans few decades."""
  low, high = axis.get_view_interval()
  if not (low > 0 and high / low < 1e3):
    return
  subs = (1.0, 1.5, 2.0, 3.0, 5.0, 7.0)
  if high / low > 6:
    subs = (1.0, 2.0, 5.0) if high / low < 100 else (1.0,)
  axis.set_major_locator(LogLocator(subs=subs))
  axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
  axis.set_minor_formatter(NullFormatter())


def add_legend(
  axes: Axes, *, reverse: bool = False, by_end: bool = False
) -> None:
  """A legend outside the data.

  Args:
    axes: what it is of.
    reverse: whether to match the order of a stack.
    by_end: whether to list many lines in the order of their right ends.
  """
  handles, labels = axes.get_legend_handles_labels()
  if not handles:
    return
  if by_end and len(handles) > len(parts.PALETTE):
    handles.sort(key=lambda line: -line.get_ydata()[-1])
    labels = [line.get_label() for line in handles]
  axes.legend(
    handles,
    labels,
    loc="upper left",
    bbox_to_anchor=(1.01, 1.0),
    borderaxespad=0.0,
    reverse=reverse,
    frameon=False,
    fontsize=8,
    handlelength=2.0,
    labelspacing=0.35,
  )


def add_shared_legend(figure: Figure) -> None:
  """One legend of all axes of a grid, below them."""
  entries = {}
  for axes in figure.axes:
    for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
      entries.setdefault(label, handle)
  figure.legend(
    entries.values(),
    entries.keys(),
    loc="outside lower center",
    ncols=min(parts.LEGEND_COLUMNS, len(entries)),
    frameon=False,
    fontsize=8,
    handlelength=2.2,
  )
