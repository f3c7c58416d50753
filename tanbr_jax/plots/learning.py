"""Figures of how a method learns: its model's error, its bonus, its hits.

Of more than eight methods those with the least regret are drawn.

Letters: S seeds, T rounds.
"""

from collections.abc import Callable, Mapping

import numpy as np
from matplotlib.figure import Figure

from tanbr_jax.online import regret
from tanbr_jax.online.trace import Trace
from tanbr_jax.plots import labels, parts


def model_error(
  traces: Mapping[str, Trace], *, unit: str = "reward"
) -> Figure | None:
  """|predicted - expected reward| over time; None if no method predicts.

  Args:
    traces: method -> trace, of the same length.
    unit: of a reward, for the label.
  """
  return _draw(
    traces, regret.model_error, f"error of predicted\nreward ({unit}, log)"
  )


def exploration_bonus(
  traces: Mapping[str, Trace], *, unit: str = "reward"
) -> Figure | None:
  """The size of the played weights' bonus; None if no method has one.

  Args:
    traces: method -> trace, of the same length.
    unit: of a reward, for the label.
  """
  return _draw(
    traces, regret.exploration_bonus, f"exploration bonus\n({unit}, log)"
  )


def optimal_play(
  traces: Mapping[str, Trace], *, tolerance: float = 0.01
) -> Figure:
  """The share of rounds whose gap is small against the rewards' range.

  Args:
    traces: method -> trace, of the same stream: the range is that of them all.
    tolerance: see `regret.optimal_play`.
  """
  scale = regret.reward_range(traces.values())

  def hits(trace: Trace) -> np.ndarray:
    return regret.optimal_play(trace, scale=scale, tolerance=tolerance)

  label = f"share of rounds whose gap is\nwithin {tolerance:.0%} of the range"
  figure = _draw(traces, hits, label, log=False)
  figure.axes[0].set_ylim(-0.02, 1.02)
  return figure


def _draw(
  traces: Mapping[str, Trace],
  curve: Callable[[Trace], np.ndarray | None],
  label: str,
  *,
  log: bool = True,
) -> Figure | None:
  """Trailing means of each seed's [T] curve, averaged over seeds."""
  found = {name: curve(trace) for name, trace in traces.items()}
  told = [name for name, values in found.items() if values is not None]
  shown = parts.least_regret({name: traces[name] for name in told})
  if not shown:
    return None
  height = max(3.0, labels.legend_height(len(shown)))
  figure, (axes,) = parts.make_figure(1, height=height)
  num_seeds, num_rounds = found[shown[0]].shape
  window = max(1, num_rounds // 50)
  for index, name in enumerate(traces):
    if name in shown:
      smooth = parts.trailing_mean(found[name], window)
      parts.band(axes, smooth, index, name, first_round=window)
  if log and any((found[name] > 0).any() for name in shown):
    axes.set_yscale("log", nonpositive="mask")
    labels.plain_ticks(axes.yaxis)
  axes.set_xlim(left=0)
  axes.set_xlabel(f"round (each point the mean of {window} rounds)")
  axes.set_ylabel(label)
  axes.set_title(parts.over_seeds(num_seeds), loc="left", fontsize="small")
  labels.add_legend(axes, by_end=True)
  return figure
