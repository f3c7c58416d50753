"""Which method has how much regret on which stream, and at what cost.

Reads the folders of many runs of the main job, keeps what the tables need, and
makes the tables. The folders are named by what is varied:

  mixes/MIX_REQUESTS   runs of configs/online/mixes.py
  rewards/NAME         of configs/online/rewards.py; NAME_SIGNAL with a signal
  delays               of configs/online/delays.py
  signals/NAME         of configs/online/mixes.py with a signal of another kind,
                       or gradient_N of N requests
  costs_DEVICE         of experiments.signal_costs
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from configs.online import delays
from experiments import signal_costs
from experiments.common import readme_block
from tanbr_jax.report import workdir as reporting

# What each method is told; the order of groups is that of the tables.
TOLD = {
  "the truth": ("best_static",),
  "gradient": ("meta_gradient",),
  "gradient and rewards": ("ts_grad",),
  "rewards": ("tanbr", "multitask_ts", "lin_ucb"),
  "the router's usage": ("follow_usage",),
  "nothing": ("routed", "uniform"),
}
MIXES = ("drift", "piecewise", "fixed")
REQUESTS = (4, 16, 64)
GRADIENTS = (1, 2, 4, 8)
# The reward's run -> its title. `accuracy` is the stream of the other tables.
REWARDS = {
  "accuracy": "next byte",
  "whole_words": "whole words",
  "judge": "a judge",
  "paying": "paying tasks",
  "plain_letters": "plain letters",
}
# Other signals than the served text's loss, in runs NAME_SIGNAL.
SIGNALS = ("differences", "agreement")
_BASE = "mixes/drift_16"

Kept = Mapping[str, Any]


def collect(run: Path) -> dict[str, Any]:
  """What the tables need of the folders in `run`.

  Raises:
    ValueError: there is no run of the main job.
  """
  found: dict[str, Any] = {"runs": {}, "devices": {}, "costs": {}}
  for path in sorted(run.rglob(reporting.SUMMARY)):
    name = str(path.parent.relative_to(run))
    found["runs"][name] = _methods(reporting.read_json(path))
    about = reporting.read_json(path.parent / reporting.CONFIG)
    found["devices"][name] = about["device"]
  if not found["runs"]:
    raise ValueError(f"{run} holds no {reporting.SUMMARY}: no run is done")
  found["about"] = {
    "num_rounds": about["config"]["num_rounds"],
    "num_seeds": about["config"]["num_seeds"],
    "jax": about["versions"]["jax"],
  }
  for path in sorted(run.glob(f"costs_*/{signal_costs.FILE}")):
    rows = reporting.read_json(path)["rows"]
    device = path.parent.name.removeprefix("costs_").replace("_", " ")
    found["costs"][device] = {row["slot"]: row["median"] for row in rows}
  return found


def _methods(summary: Mapping[str, Any]) -> dict[str, list[float]]:
  """Method -> regret, the ends of its interval, regret a late slot.

  Late slots are the last quarter of a run.
  """
  key = "expected_regret"
  return {
    name.removesuffix(f"/{key}"): [
      value,
      summary[f"{name}_low"],
      summary[f"{name}_high"],
      summary[name.replace(key, "simple_regret")],
    ]
    for name, value in summary.items()
    if name.endswith(f"/{key}")
  }


def told(method: str) -> str:
  """The group that a method belongs to, late ones with the others."""
  name = method.split("_late_")[0]
  return next(group for group, names in TOLD.items() if name in names)


def text(kept: Kept) -> str:
  """All tables as Markdown."""
  about = kept["about"]
  by_device: dict[str, list[str]] = {}
  for run, device in kept["devices"].items():
    by_device.setdefault(device, []).append(run)
  where = "; ".join(
    f"on {device}: {', '.join(runs)}" for device, runs in by_device.items()
  )
  caption = (
    f"Regret over {about['num_rounds']:,} slots, {about['num_seeds']} seeds "
    f"that no tuning saw, with 95 % intervals. Measured with jax {about['jax']}"
    f"; each device trained the model anew: {where}."
  )
  parts = [
    caption,
    "**What is rewarded**; after each interval the regret of the last quarter "
    "of the slots, per 1,000.",
    rewards_table(kept),
    "**Rewards that arrive late**, by so many slots.",
    delays_table(kept),
    "**Mixes and requests a slot.**",
    mixes_table(kept),
    "**Gradients of some of 16 requests.**",
    gradients_table(kept),
    "**What a decision and its update cost**, beside the slot's signal.",
    costs_table(kept),
  ]
  return "\n\n".join(parts)


def rewards_table(kept: Kept) -> str:
  """A row a method, a column a reward; with the late slots' regret."""
  runs = {name: f"rewards/{name}" for name in REWARDS} | {"accuracy": _BASE}
  rows = [
    [method, group, *(_late_cell(kept, run, method) for run in runs.values())]
    for group, methods in TOLD.items()
    for method in methods
  ]
  for signal in SIGNALS:
    names = [f"rewards/{name}_{signal}" for name in REWARDS]
    names[0] = f"signals/{signal}"
    if any(name in kept["runs"] for name in names):
      cells = [_late_cell(kept, name, "meta_gradient") for name in names]
      rows.append([f"meta_gradient on {signal}", _SIGNAL_TOLD[signal], *cells])
  return readme_block.table(["method", "is told", *REWARDS.values()], rows)


_SIGNAL_TOLD = {
  "differences": "rewards of two merges",
  "agreement": "the routed model",
}


def delays_table(kept: Kept) -> str:
  """A row a method, a column a delay."""
  rows = []
  for method in delays.METHODS:
    late = [f"{method}_late_{count}" for count in delays.DELAYS]
    cells = [_cell(kept, "delays", name) for name in late]
    rows.append([method, told(method), _cell(kept, _BASE, method), *cells])
  titles = ["method", "is told", "0", *map(str, delays.DELAYS)]
  return readme_block.table(titles, rows)


def mixes_table(kept: Kept) -> str:
  """A row a mix and a count of requests, a column a method."""
  methods = [name for names in TOLD.values() for name in names]
  rows = [
    [
      mix,
      str(count),
      *(_cell(kept, f"mixes/{mix}_{count}", method) for method in methods),
    ]
    for mix in MIXES
    for count in REQUESTS
    if f"mixes/{mix}_{count}" in kept["runs"]
  ]
  return readme_block.table(["mix", "requests", *methods], rows)


def gradients_table(kept: Kept) -> str:
  """A row a learner, a column how many requests give the gradient."""
  runs = [f"signals/gradient_{count}" for count in GRADIENTS]
  rows = [
    [method, *(_cell(kept, run, method) for run in runs)]
    for method in ("meta_gradient", "ts_grad")
  ]
  return readme_block.table(["method", *map(str, GRADIENTS)], rows)


def costs_table(kept: Kept) -> str:
  """A row a learner, its time and its share of a merged slot by device."""
  devices = list(kept["costs"])
  learners = [
    name
    for name in next(iter(kept["costs"].values()), {})
    if name.startswith(signal_costs.LEARNER)
  ]
  rows = []
  for name in learners:
    cells = []
    for device in devices:
      times = kept["costs"][device]
      share = times[name] / times[signal_costs.PLAIN]
      cells.append(f"{times[name]:.2f} ms ({share:.2f} merged slots)")
    rows.append([name.removeprefix(signal_costs.LEARNER), *cells])
  return readme_block.table(["learner", *devices], rows)


def _cell(kept: Kept, run: str, method: str) -> str:
  found = kept["runs"].get(run, {}).get(method)
  if found is None:
    return "-"
  value, low, high, _ = found
  return f"{value:.1f} [{low:.1f}, {high:.1f}]"


def _late_cell(kept: Kept, run: str, method: str) -> str:
  cell = _cell(kept, run, method)
  if cell == "-":
    return cell
  return f"{cell}; {1000 * kept['runs'][run][method][3]:.1f}"


def panels(kept: Kept) -> dict[str, dict[str, tuple[str, float, list]]]:
  """Title -> `points` of costs on one device and of a model of one device."""
  return {
    f"the model trained on {trained}, costs on {device}": found
    for device in kept["costs"]
    for trained in dict.fromkeys(kept["devices"].values())
    if (found := points(kept, device, trained))
  }


def points(
  kept: Kept, device: str, trained: str
) -> dict[str, tuple[str, float, list]]:
  """Label -> what is told, extra compute in merged slots, regret.

  The extra compute is what the slot tells more than its rewards and what the
  learner takes to decide and to learn, over a merged slot; a routed slot's is
  what it takes more than a merged one.

  Args:
    kept: of `collect`.
    device: whose costs.
    trained: the device of the runs: regrets of models that were trained apart
      are not those of one stream.
  """
  costs = kept["costs"][device]
  runs = {
    name: run
    for name, run in kept["runs"].items()
    if kept["devices"][name] == trained
  }
  unit = costs[signal_costs.PLAIN]
  slots = {"follow_usage": "merged, usage", "routed": "routed"}
  found = {}

  def add(label: str, method: str, slot: str, regret: Sequence[float]) -> None:
    learner = costs.get(signal_costs.LEARNER + method, 0.0)
    extra = (costs[slot] - unit + learner) / unit
    found[label] = told(method), extra, list(regret[:3])

  for method, regret in runs.get(_BASE, {}).items():
    if method != "oracle":
      gradient = told(method).startswith("gradient")
      whole = "merged, gradient of 16" if gradient else signal_costs.PLAIN
      add(method, method, slots.get(method, whole), regret)
  for count in GRADIENTS:
    for method, regret in runs.get(f"signals/gradient_{count}", {}).items():
      if method != "oracle":
        label = f"{method}, {count} of 16"
        add(label, method, f"merged, gradient of {count}", regret)
  for signal in ("agreement", "differences", "entropy"):
    name = f"signals/{signal}"
    if name in runs:
      regret = runs[name]["meta_gradient"]
      label = f"meta_gradient on {signal}"
      add(label, "meta_gradient", f"merged, {signal} of 16", regret)
  return found
