"""Figures and headline numbers of a run, from its arrays alone.

Keys: `curve/<policy>/<value>:<field>`, `link/<field>/<policy>/<value>:<field>`,
`fast/<slots>/<load>:ratio`, `bound:<what>`; arrays are over R realisations.
"""

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from experiments.common import drawing
from tanbr_jax.online import estimates
from tanbr_jax.plots import parts
from tanbr_jax.plots.text import plain
from tanbr_jax.report import workdir as reporting
from tanbr_jax.report.html import ReportFigure

Arrays = Mapping[str, np.ndarray]


def points(arrays: Arrays, prefix: str) -> dict[str, dict[float, dict]]:
  """Policy -> value -> field -> [R], of keys with a prefix."""
  found: dict[str, dict[float, dict]] = defaultdict(lambda: defaultdict(dict))
  for key, values in arrays.items():
    name, _, field = key.rpartition(":")
    if name.startswith(prefix):
      policy, value = name[len(prefix) :].split("/")
      found[policy][float(value)][field] = values
  return {
    policy: {v: dict(rows[v]) for v in sorted(rows)}
    for policy, rows in found.items()
  }


def headline(arrays: Arrays) -> dict[str, float | str]:
  """What SiftMoE saves, and where its curve does not dominate.

  SiftMoE's curve joins its budgets, as slots that take turns would.
  `saved/at_practical_<quality>`: the share of practical top-K's energy that
  the curve saves where it first is as good, and with a hundredth (of a nat or
  of accuracy) to spare.
  `dominance/<quality>/...`: for every other policy's point, whether the curve
  takes at most its energy where it is as good (to `TIE`, in nats or accuracy);
  "clearly" not, where it takes more in 97.5 % of resamples of the realisations.
  JESA's points are held against SiftMoE on JESA's subcarriers. Intervals are
  the bootstrap's over realisations.
  """
  curves = points(arrays, "curve/")
  flat: dict[str, float | str] = {}
  for quality, sign in (("loss", -1), ("accuracy", 1)):
    practical = curves.get("practical_top_k", {})
    for one in practical.values():
      for slack, name in ((0.0, ""), (SLACK, "_less_a_hundredth")):
        allowed = one | {quality: one[quality] - sign * slack}
        excess = _excess(curves["siftmoe"], allowed, quality, sign)
        flat |= reporting.estimate_entries(
          f"saved/at_practical_{quality}{name}",
          estimates.Estimate(-excess.value, -excess.high, -excess.low),
        )
    total = missed = clearly = 0
    for policy, rows in curves.items():
      if policy.startswith("siftmoe") or policy == "ideal_top_k":
        continue
      curve = curves["siftmoe_on_jesa" if policy == "jesa" else "siftmoe"]
      found = {
        value: _excess(curve, one, quality, sign) for value, one in rows.items()
      }
      worse = {v: e for v, e in found.items() if e.value > 1e-6}
      total, missed = total + len(rows), missed + len(worse)
      clearly += sum(e.low > 0 for e in worse.values())
      flat[f"dominance/{quality}/{policy}_not_at"] = (
        " ".join(
          f"{v:g}{' clearly' if e.low > 0 else ''}" for v, e in worse.items()
        )
        or "none"
      )
    flat[f"dominance/{quality}/points"] = total
    flat[f"dominance/{quality}/beaten"] = total - missed
    flat[f"dominance/{quality}/clearly_missed"] = clearly
  return flat


SLACK = 0.01
# Less than what is to be told apart on so much text.
TIE = 0.001
# The energy of a curve that never is as good, relative to the other's.
_NEVER = 10.0


def _excess(
  curve: Mapping[float, dict], other: dict, quality: str, sign: int
) -> estimates.Estimate:
  """Energy of the curve, as good as another point, over that point's, less 1.

  At most `_NEVER`, which also stands for a curve that is never as good.
  """
  # [R, P + 1] of energies and of qualities, the other's last.
  energy, good = (
    np.stack([*(row[key] for row in curve.values()), other[key]], axis=1)
    for key in ("energy_j", quality)
  )

  def statistic(rows: np.ndarray) -> float:
    spent, reached = rows[:, 0].mean(axis=0), sign * rows[:, 1].mean(axis=0)
    order = np.argsort(spent[:-1], kind="stable")
    x, y = spent[:-1][order], reached[:-1][order]
    target = reached[-1] - TIE
    places = np.flatnonzero(y >= target)
    if not places.size:
      return _NEVER
    place = places[0]
    least = x[place]
    if place:
      part = (target - y[place - 1]) / (y[place] - y[place - 1])
      least = x[place - 1] + part * (x[place] - x[place - 1])
    return min(least / spent[-1] - 1, _NEVER)

  return estimates.bootstrap(
    np.stack([energy, good], axis=1), statistic, num_resamples=1000
  )


def draw(folder: Path, arrays: Arrays) -> list[ReportFigure]:
  """Writes all figures into the run's folder."""
  made = []
  for name, figure, caption in (
    (
      "curve",
      _curve,
      "Loss and accuracy less those of ideal top-K, which nothing delays, on "
      "the same text, against energy; one point a budget or knob. [R]",
    ),
    (
      "links",
      _links,
      "Energy, loss and dropped pairs under other bandwidths and deadlines "
      "[R].",
    ),
    (
      "fast",
      _fast,
      "Fast fading: energy of adaptive bits a slot relative to uniform ones, "
      "by bits a slot and hertz, on drawn gains [R].",
    ),
    (
      "bounds",
      _bounds,
      "Each token's deviation against its exact bound and the tables' "
      "estimates, and the output's against the sum over layers. [R]",
    ),
    (
      "slots",
      _slots,
      "Accuracy less the price of energy over slots, learner and radio alone "
      "and together, above SiftMoE alone; running means, bands over seeds [R].",
    ),
  ):
    file = f"{name}.png"
    if name == "slots" and not any(key.startswith(name) for key in arrays):
      continue
    with drawing.surviving(file):
      parts.save(figure(arrays), folder / file)
      made.append(ReportFigure(file, caption))
  return made


def _curve(arrays: Arrays) -> Figure:
  curves = points(arrays, "curve/")
  (ideal,) = curves.pop("ideal_top_k").values()
  figure, (axes,) = parts.make_grid(
    1, 2, height=3.0, num_labels=len(curves), share_x=False
  )
  for axis, field in zip(axes, ("loss", "accuracy"), strict=True):
    for index, (policy, rows) in enumerate(curves.items()):
      _points(axis, rows, ideal, field, policy, parts.line_style(index))
    axis.axhline(0.0, color="black", linewidth=0.8, linestyle=":")
    axis.set_xlabel("energy (mJ a token)")
    low, high = axis.dataLim.intervalx
    if high > 50 * low:
      axis.set_xscale("log")
      axis.xaxis.set_minor_formatter(NullFormatter())
  axes[0].set_ylabel("loss above ideal top-K's (nats)")
  axes[1].set_ylabel("accuracy above ideal top-K's")
  worst = _worst(curves, ideal, "loss")
  axes[0].set_ylim(-0.1 * worst, worst)
  worst = _worst(curves, ideal, "accuracy")
  axes[1].set_ylim(-worst, 0.2 * worst)
  _legend(figure, axes[0])
  return figure


def _worst(
  curves: Mapping[str, Mapping[float, dict]], ideal: dict, field: str
) -> float:
  """Beyond this distance points are cut off: they are of no use to anyone."""
  found = [
    abs((one[field] - ideal[field]).mean())
    for policy, rows in curves.items()
    for one in rows.values()
    if policy != "random"
  ]
  return 0.75 * max(found) + 1e-3


def _points(
  axis, rows, ideal: dict, field: str, policy: str, style: dict
) -> None:
  """A policy's curve; differences are of the same text."""
  found = [
    (
      estimates.mean(one["energy_j"] * 1e3),
      estimates.mean(one[field] - ideal[field]),
    )
    for one in rows.values()
  ]
  found.sort(key=lambda pair: pair[0].value)
  x, y = ([pair[i].value for pair in found] for i in (0, 1))
  low, high = ([pair[1][i] for pair in found] for i in (1, 2))
  axis.plot(x, y, marker="o", markersize=3, label=plain(policy), **style)
  axis.fill_between(x, low, high, color=style["color"], alpha=0.1, linewidth=0)


def _links(arrays: Arrays) -> Figure:
  fields = ("energy_j", "loss", "dropped")
  labels = ("energy (J a token)", "loss (nats)", "pairs dropped")
  figure, grid = parts.make_grid(3, 2, height=1.7, num_labels=2, share_x=False)
  for column, (link, unit) in enumerate(
    (("bandwidth_hz", "bandwidth (Hz)"), ("deadline_s", "deadline (s)"))
  ):
    for index, (policy, rows) in enumerate(
      points(arrays, f"link/{link}/").items()
    ):
      x = list(rows)
      for row, field in enumerate(fields):
        found = [estimates.mean(one[field]) for one in rows.values()]
        style = parts.line_style(index)
        axis = grid[row, column]
        axis.plot(
          x,
          [f.value for f in found],
          marker="o",
          markersize=3,
          label=plain(policy),
          **style,
        )
        axis.fill_between(
          x,
          [f.low for f in found],
          [f.high for f in found],
          color=style["color"],
          alpha=0.15,
          linewidth=0,
        )
    grid[2, column].set_xlabel(unit)
  for row, label in enumerate(labels):
    grid[row, 0].set_ylabel(label)
    if row == 0:
      for axis in grid[row]:
        axis.set_yscale("log")
  _legend(figure, grid[0, 0])
  return figure


def _fast(arrays: Arrays) -> Figure:
  by_load: dict[str, dict[float, np.ndarray]] = defaultdict(dict)
  for key, values in arrays.items():
    if key.startswith("fast/"):
      _, slots, load = key.rpartition(":")[0].split("/")
      by_load[load][float(slots)] = values
  figure, (axis,) = parts.make_figure(1, height=2.6)
  for index, (load, rows) in enumerate(by_load.items()):
    slots = sorted(rows)
    found = [estimates.mean(rows[s]) for s in slots]
    style = parts.line_style(index)
    axis.plot(
      slots,
      [f.value for f in found],
      marker="o",
      markersize=3,
      label=f"{load} bits a slot and hertz",
      **style,
    )
    axis.fill_between(
      slots,
      [f.low for f in found],
      [f.high for f in found],
      color=style["color"],
      alpha=0.15,
      linewidth=0,
    )
  axis.axhline(1.0, color="black", linewidth=0.8, linestyle=":")
  axis.set_xlabel("slots of a transmission")
  axis.set_ylabel("energy relative to uniform bits")
  axis.legend(fontsize=7)
  return figure


def _bounds(arrays: Arrays) -> Figure:
  figure, (axes,) = parts.make_grid(
    1, 2, height=3.0, num_labels=4, share_x=False
  )
  measured = arrays["bound:measured"].reshape(-1)
  rng = np.random.default_rng(0)
  shown = np.flatnonzero(measured > 0)
  shown = rng.permutation(shown)[:1500]
  names = [k for k in arrays if k.startswith("bound:estimate_")]
  for index, key in enumerate(["bound:bound", *names]):
    label = key.split(":")[1].replace("estimate_", "table, ")
    axes[0].plot(
      arrays[key].reshape(-1)[shown],
      measured[shown],
      ".",
      markersize=1.5,
      color=parts.PALETTE[index],
      label=label,
      rasterized=True,
    )
  most = measured[shown].max(initial=1e-6)
  axes[0].plot([0, most], [0, most], color="black", linewidth=0.8)
  axes[0].set_xlabel("bound or estimate")
  axes[0].set_ylabel("a token's deviation")
  axes[1].plot(
    arrays["bound:predicted"], arrays["bound:propagated"], ".", markersize=3
  )
  most = arrays["bound:predicted"].max(initial=1e-6)
  axes[1].plot([0, most], [0, most], color="black", linewidth=0.8)
  axes[1].set_xlabel("sum over layers (estimate)")
  axes[1].set_ylabel("deviation of the logits")
  _legend(figure, axes[0])
  return figure


def _slots(arrays: Arrays) -> Figure:
  (alone,) = (key for key in arrays if key.startswith("slots/siftmoe/"))
  names = [k for k in arrays if k.startswith("slots/") and k != alone]
  figure, ((axis,),) = parts.make_grid(1, 1, height=3.0, num_labels=len(names))
  for index, key in enumerate(names):
    # Of the same requests: seeds are paired.
    above = arrays[key] - arrays[alone]
    rounds = np.arange(1, above.shape[1] + 1)
    running = np.cumsum(above, axis=1, dtype=np.float64) / rounds
    label = key[len("slots/") :].rpartition(":")[0]
    parts.band(axis, running, index, plain(label))
  axis.axhline(0.0, color="black", linewidth=0.8, linestyle=":")
  axis.set_xlabel("slot")
  axis.set_ylabel("mean reward so far,\nabove SiftMoE alone")
  _legend(figure, axis)
  return figure


def _legend(figure: Figure, axis) -> None:
  handles, labels = axis.get_legend_handles_labels()
  figure.legend(
    handles,
    labels,
    loc="outside lower center",
    ncols=parts.LEGEND_COLUMNS,
    fontsize=7,
    frameon=False,
  )
