"""One small panel a stream, all methods in each: a paper's page of curves."""

from collections.abc import Callable, Mapping

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tanbr_jax.online.trace import Trace
from tanbr_jax.plots import curves, labels
from tanbr_jax.plots import parts as plot_parts
from tanbr_jax.plots.text import plain

Groups = Mapping[str, Mapping[str, Trace]]


def cumulative_regret(
  groups: Groups, *, unit: str = "reward", log: bool = False
) -> Figure:
  """`curves.cumulative_regret` of every stream, in a grid.

  Args:
    groups: stream -> method -> trace; a stream is `<row>/<column>`, the rows
      are one below another. Every stream has the same methods.
    unit: of a reward, for the label.
    log: whether axes are logarithmic.
  """

  def draw(axes: Axes, traces: Mapping[str, Trace]) -> None:
    curves.draw_regret(axes, traces, log=log)

  return _draw(groups, draw, "round", f"regret ({unit})")


def regret_growth(groups: Groups) -> Figure:
  """`curves.regret_growth` of every stream, in a grid; see above."""
  return _draw(groups, curves.draw_growth, "round t", "regret / $\\sqrt{t}$")


def _draw(
  groups: Groups,
  draw: Callable[[Axes, Mapping[str, Trace]], None],
  x_label: str,
  y_label: str,
) -> Figure:
  rows = list(dict.fromkeys(stream.split("/", 1)[0] for stream in groups))
  columns = list(dict.fromkeys(stream.split("/", 1)[1] for stream in groups))
  if len(columns) == 1:
    rows, columns = columns, rows
  titles = _titles(groups)
  height = 2.4 if len(rows) == 1 else 1.9
  most = max(len(traces) for traces in groups.values())
  figure, grid = plot_parts.make_grid(
    len(rows), len(columns), height=height, num_labels=most + 1
  )
  for i, row in enumerate(rows):
    for j, column in enumerate(columns):
      axes = grid[i, j]
      stream = next(
        (s for s in (f"{row}/{column}", f"{column}/{row}") if s in groups), None
      )
      if stream is None:
        axes.set_axis_off()
        continue
      draw(axes, groups[stream])
      axes.set_title(plain(titles[stream]), loc="left", fontsize="small")
  for axes in grid[-1]:
    axes.set_xlabel(x_label)
  for axes in grid[:, 0]:
    axes.set_ylabel(y_label)
  num_seeds = next(iter(next(iter(groups.values())).values())).num_seeds
  label = plot_parts.over_seeds(num_seeds)
  figure.suptitle(label, fontsize=8, x=0.02, ha="left")
  labels.add_shared_legend(figure)
  return figure


def _titles(groups: Groups) -> dict[str, str]:
  """Each stream's name without the parts that all streams have in common."""
  parts = {stream: stream.split("/") for stream in groups}
  if len({len(names) for names in parts.values()}) > 1 or len(parts) == 1:
    return {stream: ", ".join(names) for stream, names in parts.items()}
  columns = zip(*parts.values(), strict=True)
  differs = [i == 0 or len(set(names)) > 1 for i, names in enumerate(columns)]
  return {
    stream: ", ".join(n for n, kept in zip(names, differs, strict=True) if kept)
    for stream, names in parts.items()
  }
