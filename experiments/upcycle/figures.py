"""The figures of experiments/upcycle/README.md.

Letters: V tasks, S seeds.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from tanbr_jax.online import regret
from tanbr_jax.online.trace import Trace
from tanbr_jax.plots import labels, parts
from tanbr_jax.plots.text import plain

# Reward of a run -> its panel's title and the unit of its regret.
REWARDS = {
  "log_likelihood": ("reward: log-likelihood", "nats a token"),
  "accuracy": ("reward: accuracy", "share of tokens"),
}


def served(
  runs: Mapping[str, Mapping[str, Trace]], *, methods: Sequence[str]
) -> Figure:
  """Regret against the oracle over slots, a panel a reward.

  Lines are means over seeds, bands as in `plots.parts.band`. The oracle is the
  line at zero.

  Args:
    runs: a key of `REWARDS` -> method -> trace, whose optimal reward is what
      the oracle earned.
    methods: that may be drawn, in the order of colours.
  """
  methods = [name for name in methods if name != "oracle"]
  figure, grid = parts.make_grid(
    1, len(runs), height=3.0, num_labels=len(methods) + 1
  )
  for axes, (reward, traces) in zip(grid[0], runs.items(), strict=True):
    title, unit = REWARDS[reward]
    axes.axhline(0.0, color="black", linewidth=0.8, label="oracle")
    for index, name in enumerate(methods):
      if name in traces:
        found = regret.expected(traces[name])
        parts.band(axes, found, index, name, faint=len(traces) > 5)
    seeds = parts.over_seeds(next(iter(traces.values())).num_seeds)
    axes.set_title(f"{title}\n{seeds}", loc="left", fontsize="small")
    axes.set_xlabel("slot")
    axes.set_ylabel(f"regret against the oracle\n({unit}, summed over slots)")
    axes.set_xlim(left=0)
  labels.add_shared_legend(figure)
  return figure


def losses(
  forms: Mapping[str, Sequence[Sequence[float]]], *, task_names: Sequence[str]
) -> Figure:
  """Loss above the control's by task: means over seeds, and their range.

  Args:
    forms: title -> losses less the control's of the same seed [S, V], nats a
      token; S may differ.
    task_names: V names.
  """
  figure, grid = parts.make_grid(1, 1, height=3.0, num_labels=len(forms))
  axes = grid[0, 0]
  axes.axhline(0.0, color="black", linewidth=0.8)
  offsets = np.linspace(-0.24, 0.24, len(forms)) if len(forms) > 1 else [0.0]
  for index, (title, found) in enumerate(forms.items()):
    values = np.asarray(found, np.float64)
    mean = values.mean(axis=0)
    axes.errorbar(
      np.arange(len(task_names)) + offsets[index],
      mean,
      yerr=[mean - values.min(axis=0), values.max(axis=0) - mean],
      fmt="os^D"[index % 4],
      markersize=4,
      linewidth=1.2,
      capsize=2,
      color=parts.PALETTE[index],
      label=f"{title}, {len(values)} seed{'s' * (len(values) > 1)}",
    )
  axes.set_xticks(range(len(task_names)), list(map(plain, task_names)))
  axes.tick_params(axis="x", labelrotation=20)
  axes.set_ylabel(
    "test loss above that of one FFN\ntuned on all tasks (nats a token)"
  )
  axes.set_title(
    "mean over seeds, bar from the least to the largest",
    loc="left",
    fontsize="small",
  )
  labels.add_shared_legend(figure)
  return figure
