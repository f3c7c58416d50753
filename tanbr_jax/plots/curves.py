"""Figures of a run, drawn from its traces alone.

Every function returns a `matplotlib.figure.Figure` that no global state knows
of; `parts.save` writes it. Letters: S seeds, T rounds, V tasks, E experts.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tanbr_jax.online import regret
from tanbr_jax.online.trace import Trace
from tanbr_jax.plots import labels as plot_labels
from tanbr_jax.plots import parts
from tanbr_jax.plots.text import plain


def cumulative_regret(
  traces: Mapping[str, Trace], *, unit: str = "reward", log: bool = False
) -> Figure:
  """Expected regret against rounds: means over seeds, and bands.

  The band is the 95 % Student interval, or the range with fewer than 5 seeds.

  Args:
    traces: method -> trace, of the same length.
    unit: of a reward, for the label.
    log: whether both axes are logarithmic, for methods far apart.
  """
  figure, (axes,) = parts.make_figure(1, height=_height(traces))
  num_seeds = next(iter(traces.values())).num_seeds
  draw_regret(axes, traces, log=log)
  scale = ", log scale" if log else ""
  axes.set_xlabel(f"round{scale}")
  axes.set_ylabel(f"cumulative expected regret\n({unit}{scale})")
  axes.set_title(parts.over_seeds(num_seeds), loc="left", fontsize="small")
  plot_labels.add_legend(axes, by_end=True)
  return figure


def draw_regret(
  axes: Axes, traces: Mapping[str, Trace], *, log: bool = False
) -> None:
  """The lines and bands of `cumulative_regret`, without labels."""
  for index, (name, trace) in enumerate(traces.items()):
    parts.band(
      axes,
      regret.expected(trace),
      index,
      name,
      log=log,
      faint=len(traces) > len(parts.PALETTE),
    )
  if log:
    axes.set_xscale("log")
    axes.set_yscale("log", nonpositive="mask")
  else:
    axes.set_xlim(left=0)


def regret_growth(traces: Mapping[str, Trace]) -> Figure:
  """R_t / sqrt(t) on logarithmic axes, with the shape of sqrt(T) log T.

  A method whose curve falls or is flat is no worse than sqrt(t); a straight
  rise with slope 1/2 is linear regret. The grey line is c log t, scaled to the
  lowest curve at the first round that is drawn.
  """
  figure, (axes,) = parts.make_figure(1, height=_height(traces))
  draw_growth(axes, traces)
  axes.set_xlabel("round t (log scale)")
  axes.set_ylabel("mean expected regret / $\\sqrt{t}$\n(log scale)")
  plot_labels.add_legend(axes, by_end=True)
  return figure


def draw_growth(axes: Axes, traces: Mapping[str, Trace]) -> None:
  """The lines of `regret_growth`, without labels."""
  length = max(trace.num_rounds for trace in traces.values())
  rounds = np.unique(np.geomspace(min(20, length), length, 200).astype(int))
  starts = []
  for index, (name, trace) in enumerate(traces.items()):
    scaled = regret.over_root(regret.expected(trace)).mean(axis=0)
    shown = rounds[rounds <= trace.num_rounds]
    scaled = scaled[shown - 1]
    if (scaled > 0).all():
      axes.plot(shown, scaled, label=plain(name), **parts.line_style(index))
      starts.append(scaled[0])
  if starts:
    log = np.log(rounds)
    axes.plot(
      rounds,
      min(starts) * log / log[0],
      color="#999999",
      linewidth=3,
      alpha=0.5,
      zorder=1,
      label=r"shape of $\sqrt{t}\,\log t$",
    )
  axes.set_xscale("log")
  axes.set_yscale("log")
  for axis in (axes.xaxis, axes.yaxis):
    plot_labels.plain_ticks(axis)


def reward_and_mix(
  traces: Mapping[str, Trace],
  *,
  seed_index: int = 0,
  window: int | None = None,
  task_names: Sequence[str] | None = None,
  reward_name: str = "expected reward",
) -> Figure:
  """Reward of one seed over time, smoothed, above the true task mix.

  Of more than eight methods those with the least regret are drawn.

  Args:
    traces: method -> trace, all of the same stream.
    seed_index: row of the traces.
    window: rounds of the moving average; a fiftieth of the run when None.
    task_names: V names.
    reward_name: of the upper axis, unit included.
  """
  first = next(iter(traces.values()))
  window = window or max(1, first.num_rounds // 50)
  figure, (upper, lower) = parts.make_figure(2, height=4.6, ratios=(3, 2))
  best_methods = parts.least_regret(traces)
  for index, (name, trace) in enumerate(traces.items()):
    if name in best_methods:
      parts.smooth_line(
        upper, trace.expected_reward[seed_index], window, index, name
      )
  if "oracle" not in traces:
    best = first.optimal_reward[seed_index]
    parts.smooth_line(upper, best, window, None, "optimum")
  upper.set_ylabel(f"{reward_name}\n(mean of {window} rounds)")
  plot_labels.add_legend(upper)
  mix = first.task_mix[seed_index]
  parts.stack(lower, mix, task_names or parts.numbered("task", mix.shape[1]))
  lower.set_ylabel("true task mix")
  lower.set_xlabel(f"round (seed {first.seeds[seed_index]})")
  plot_labels.add_legend(lower, reverse=True)
  return figure


def merge_weights(
  trace: Trace,
  *,
  seed_index: int = 0,
  task_names: Sequence[str] | None = None,
) -> Figure:
  """Merge weights of one method in one seed, above the true task mix.

  More than eight experts are drawn as the seven with the largest mean weight
  and the sum of the others.
  """
  figure, (upper, lower) = parts.make_figure(2, height=4.6, ratios=(3, 2))
  weights = trace.merge_weights[seed_index]
  parts.stack(
    upper,
    *parts.largest(weights, parts.numbered("expert", weights.shape[1])),
  )
  upper.set_ylabel("merge weight")
  plot_labels.add_legend(upper, reverse=True)
  mix = trace.task_mix[seed_index]
  parts.stack(lower, mix, task_names or parts.numbered("task", mix.shape[1]))
  lower.set_ylabel("true task mix")
  lower.set_xlabel(f"round (seed {trace.seeds[seed_index]})")
  plot_labels.add_legend(lower, reverse=True)
  return figure


def tree_growth(traces: Mapping[str, Trace]) -> Figure | None:
  """Leaves and depth of the trees over time, with bands over seeds.

  Args:
    traces: method -> trace; those without `num_leaves` and `depth` in `aux`
      have no tree.

  Returns:
    The figure, or None if no method has a tree.
  """
  trees = {
    n: t for n, t in traces.items() if {"num_leaves", "depth"} <= set(t.aux)
  }
  if not trees:
    return None
  # Leaves above, depths below.
  height = max(4.2, 2 * plot_labels.legend_height(2 * len(trees)))
  figure, (upper, lower) = parts.make_figure(2, height=height, ratios=(1, 1))
  # Dots mean the leaf played: colours alone must tell the trees apart.
  named = trees if len(traces) > len(parts.PALETTE) else traces
  for index, name in enumerate(named):
    if name not in trees:
      continue
    trace = trees[name]
    parts.band(upper, trace.aux["num_leaves"], index, name)
    if "max_depth" in trace.aux:
      parts.band(lower, trace.aux["max_depth"], index, f"{name}, deepest leaf")
    window = max(1, trace.num_rounds // 50)
    played = trace.aux["depth"].mean(axis=0)
    parts.smooth_line(
      lower, played, window, index, f"{name}, leaf played", linestyle=":"
    )
  # Labels and legends.
  num_seeds = next(iter(trees.values())).num_seeds
  upper.set_ylabel("leaves")
  upper.set_title(parts.over_seeds(num_seeds), loc="left", fontsize="small")
  upper.set_ylim(bottom=0)
  lower.set_ylim(bottom=0)
  lower.set_ylabel("depth (splits)")
  lower.set_xlabel("round")
  plot_labels.add_legend(upper)
  plot_labels.add_legend(lower)
  return figure


def _height(traces: Mapping[str, Trace]) -> float:
  """Inches of a figure whose legend names every method, and one line more."""
  return max(3.4, plot_labels.legend_height(len(traces) + 1))
