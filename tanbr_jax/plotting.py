"""Figures of a run, drawn from its traces alone.

Every function returns a `matplotlib.figure.Figure` that no global state knows
of; `save` writes it. Letters: S seeds, T rounds, V tasks, E experts.
"""

import io
import os
from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from tanbr_jax import atomic, regret
from tanbr_jax.trace import Trace

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
_LINES = ("-", "--", ":")
_HATCHES = ("", "////", "....")
_STYLE = {
  "font.size": 9,
  "axes.spines.top": False,
  "axes.spines.right": False,
  "axes.grid": True,
  "grid.color": "#e5e5e5",
  "grid.linewidth": 0.6,
  "lines.linewidth": 1.4,
  "figure.dpi": 200,
}
_WIDTH = 6.5  # inches, the text width of a one-column paper
_MAX_POINTS = 400
# With fewer seeds Student's interval is many times the range of the data.
_FEW_SEEDS = 5


def save(figure: Figure, path: str | os.PathLike[str]) -> None:
  """Writes a figure as PNG, atomically."""
  buffer = io.BytesIO()
  figure.savefig(buffer, format="png", dpi=200)
  atomic.write_bytes(path, buffer.getvalue())


def cumulative_regret(
  traces: Mapping[str, Trace], *, unit: str = "reward"
) -> Figure:
  """Expected regret against rounds: means over seeds, and bands.

  The band is the 95 % Student interval, or the range with fewer than 5 seeds.

  Args:
    traces: method -> trace, of the same length.
    unit: of a reward, for the label.
  """
  figure, (axes,) = _figure(1, height=3.4)
  num_seeds = next(iter(traces.values())).num_seeds
  for index, (name, trace) in enumerate(traces.items()):
    _band(axes, regret.expected(trace), index, name)
  axes.set_xlim(left=0)
  axes.set_xlabel("round")
  axes.set_ylabel(f"cumulative expected regret\n({unit})")
  axes.set_title(_over(num_seeds), loc="left", fontsize="small")
  _legend(axes)
  return figure


def regret_growth(traces: Mapping[str, Trace]) -> Figure:
  """R_t / sqrt(t) on logarithmic axes, with the shape of sqrt(T) log T.

  A method whose curve falls or is flat is no worse than sqrt(t); a straight
  rise with slope 1/2 is linear regret. The grey line is c log t, scaled to the
  lowest curve at the first round that is drawn.
  """
  figure, (axes,) = _figure(1, height=3.4)
  length = max(trace.num_rounds for trace in traces.values())
  rounds = np.unique(np.geomspace(min(20, length), length, 200).astype(int))
  starts = []
  for index, (name, trace) in enumerate(traces.items()):
    mean = regret.expected(trace).mean(axis=0)
    shown = rounds[rounds <= trace.num_rounds]
    scaled = mean[shown - 1] / np.sqrt(shown)
    if (scaled > 0).all():
      axes.plot(shown, scaled, label=name, **_line(index))
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
  axes.set_xlabel("round t (log scale)")
  axes.set_ylabel("mean expected regret / $\\sqrt{t}$\n(log scale)")
  _legend(axes)
  return figure


def reward_and_mix(
  traces: Mapping[str, Trace],
  *,
  seed_index: int = 0,
  window: int | None = None,
  task_names: Sequence[str] | None = None,
  reward_name: str = "expected reward",
) -> Figure:
  """Reward of one seed over time, smoothed, above the stream's task mix.

  Args:
    traces: method -> trace, all of the same stream.
    seed_index: row of the traces.
    window: rounds of the moving average; a fiftieth of the run when None.
    task_names: V names.
    reward_name: of the upper axis, unit included.
  """
  first = next(iter(traces.values()))
  window = window or max(1, first.num_rounds // 50)
  figure, (upper, lower) = _figure(2, height=4.6, ratios=(3, 2))
  for index, (name, trace) in enumerate(traces.items()):
    _smooth_line(upper, trace.expected_reward[seed_index], window, index, name)
  if "oracle" not in traces:
    best = first.optimal_reward[seed_index]
    _smooth_line(upper, best, window, None, "optimum")
  upper.set_ylabel(f"{reward_name}\n(mean of {window} rounds)")
  _legend(upper)
  mix = first.task_mix[seed_index]
  _stack(lower, mix, task_names or _numbered("task", mix.shape[1]))
  lower.set_ylabel("share of requests")
  lower.set_xlabel(f"round (seed {first.seeds[seed_index]})")
  _legend(lower, reverse=True)
  return figure


def merge_weights(
  trace: Trace,
  *,
  seed_index: int = 0,
  task_names: Sequence[str] | None = None,
) -> Figure:
  """What one method played in one seed, above the stream's task mix.

  More than eight experts are drawn as the seven with the largest mean weight
  and the sum of the others.
  """
  figure, (upper, lower) = _figure(2, height=4.6, ratios=(3, 2))
  weights = trace.merge_weights[seed_index]
  _stack(upper, *_largest(weights, _numbered("expert", weights.shape[1])))
  upper.set_ylabel("merge weight")
  _legend(upper, reverse=True)
  mix = trace.task_mix[seed_index]
  _stack(lower, mix, task_names or _numbered("task", mix.shape[1]))
  lower.set_ylabel("share of requests")
  lower.set_xlabel(f"round (seed {trace.seeds[seed_index]})")
  _legend(lower, reverse=True)
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
  figure, (upper, lower) = _figure(2, height=4.2, ratios=(1, 1))
  for index, (name, trace) in enumerate(trees.items()):
    _band(upper, trace.aux["num_leaves"], index, name)
    if "max_depth" in trace.aux:
      _band(lower, trace.aux["max_depth"], index, f"{name}, deepest leaf")
    window = max(1, trace.num_rounds // 50)
    played = trace.aux["depth"].mean(axis=0)
    _smooth_line(
      lower, played, window, index, f"{name}, leaf played", linestyle=":"
    )
  num_seeds = next(iter(trees.values())).num_seeds
  upper.set_ylabel("leaves")
  upper.set_title(_over(num_seeds), loc="left", fontsize="small")
  upper.set_ylim(bottom=0)
  lower.set_ylim(bottom=0)
  lower.set_ylabel("depth (splits)")
  lower.set_xlabel("round")
  _legend(upper)
  _legend(lower)
  return figure


def _figure(
  num_axes: int, *, height: float, ratios: Sequence[float] = (1,)
) -> tuple[Figure, list[Axes]]:
  with matplotlib.rc_context(_STYLE):
    figure = Figure(figsize=(_WIDTH, height), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(num_axes, 1, sharex=True, height_ratios=ratios)
    return figure, list(np.atleast_1d(axes))


def _line(index: int) -> dict[str, str]:
  return {
    "color": PALETTE[index % len(PALETTE)],
    "linestyle": _LINES[index // len(PALETTE) % len(_LINES)],
  }


def _thin(length: int) -> np.ndarray:
  """Rounds, counted from 0, that are enough for a line."""
  return np.unique(np.linspace(0, length - 1, _MAX_POINTS).astype(int))


def _band(axes: Axes, values: np.ndarray, index: int, label: str) -> None:
  """Mean over seeds of [S, T] and a band, see `_over`."""
  rounds = _thin(values.shape[1])
  if values.shape[0] < _FEW_SEEDS:
    kept = values[:, rounds]
    parts = np.stack([kept.mean(0), kept.min(0), kept.max(0)], axis=1)
  else:
    parts = np.asarray([regret.mean(values[:, t]) for t in rounds])
  axes.plot(rounds + 1, parts[:, 0], label=label, **_line(index))
  if values.shape[0] > 1:
    color = _line(index)["color"]
    axes.fill_between(
      rounds + 1, parts[:, 1], parts[:, 2], color=color, alpha=0.2, linewidth=0
    )


def _smooth_line(
  axes: Axes,
  values: np.ndarray,
  window: int,
  index: int | None,
  label: str,
  **style: str,
) -> None:
  """A moving average of [T] over the last `window` rounds."""
  window = min(window, values.size)
  sums = np.cumsum(np.concatenate([[0.0], values.astype(np.float64)]))
  smooth = (sums[window:] - sums[:-window]) / window
  if index is None:
    look = {"color": "black", "linestyle": "-", "linewidth": 0.8}
  else:
    look = _line(index) | style
  kept = _thin(smooth.size)
  axes.plot(kept + window, smooth[kept], label=label, **look)


def _stack(axes: Axes, shares: np.ndarray, names: Sequence[str]) -> None:
  """Shares [T, N] that add up to 1, as areas, thinned by means."""
  edges = np.append(_thin(shares.shape[0]), shares.shape[0])
  means = np.asarray(
    [shares[a:b].mean(axis=0) for a, b in zip(edges, edges[1:], strict=False)]
  )
  areas = axes.stackplot(
    edges[:-1] + 1,
    means.T,
    labels=list(names),
    colors=[PALETTE[i % len(PALETTE)] for i in range(len(names))],
    linewidth=0,
  )
  for i, area in enumerate(areas):
    area.set_hatch(_HATCHES[i // len(PALETTE) % len(_HATCHES)])
  axes.set_ylim(0, 1)
  axes.set_xlim(1, shares.shape[0])
  axes.grid(False)


def _largest(
  weights: np.ndarray, names: Sequence[str]
) -> tuple[np.ndarray, list[str]]:
  limit = len(PALETTE)
  if weights.shape[1] <= limit:
    return weights, list(names)
  order = np.argsort(-weights.mean(axis=0), kind="stable")
  kept = np.sort(order[: limit - 1])
  others = 1.0 - weights[:, kept].sum(axis=1, keepdims=True)
  shown = np.concatenate([weights[:, kept], np.maximum(others, 0.0)], axis=1)
  return shown, [*(names[i] for i in kept), "others"]


def _numbered(kind: str, count: int) -> list[str]:
  return [f"{kind} {i}" for i in range(count)]


def _over(num_seeds: int) -> str:
  if num_seeds == 1:
    return "one seed"
  if num_seeds < _FEW_SEEDS:
    return f"mean of {num_seeds} seeds, band from least to most"
  return f"mean of {num_seeds} seeds, 95 % interval"


def _legend(axes: Axes, *, reverse: bool = False) -> None:
  """A legend outside the data; `reverse` matches the order of a stack."""
  if not axes.get_legend_handles_labels()[0]:
    return
  axes.legend(
    loc="upper left",
    bbox_to_anchor=(1.01, 1.0),
    borderaxespad=0.0,
    reverse=reverse,
    frameon=False,
    fontsize=8,
    handlelength=1.6,
    labelspacing=0.35,
  )
