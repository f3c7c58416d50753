"""Rounds per second of bandits, beside PyXAB and a PyTorch NeuralUCB.

  python -m experiments.benchmark_bandits --config=configs/bandit_speed/quick.py

All in one run on one machine. Rates are slots per second of all seeds
together, the median of the chunks with their range; a chunk is a compiled scan
with its trace fetched, and one is played before the clock starts, whose time is
the compilation's. Our rates include the environment, whose own rate is that of
"environment alone" (fixed weights). "last/second" is the last chunk's rate over
the second's: below 1 if a round's cost grows with t.

x PyXAB: our rate of all seeds over PyXAB's own for one seed: it plays seeds one
after the other, on one core, and neither the environment nor the way to it
counts. T_HOO stands beside `hoo`, HCT beside `hct`, of equal nu and rho; the
rows "one tree" have what PyXAB has, too: one tree for all mixes, room for all
nodes, the same width of the confidence.
x PyTorch, in one regime: 200 rounds of history learnt without training, then 60
rounds of which each trains. "neural_ucb_practical, equal work" and PyTorch take
exactly 1,000 single-sample steps a round there (nothing stops them early), with
20 candidates, 64 hidden units, V outputs and a diagonal Z; "neural_ucb, same
rounds" is our default schedule, which trains less. The regrets of
`neural_ucb` and `neural_ucb_practical`, paired over seeds, say what that costs.

Writes `benchmark.json`. What is not installed is a row with its reason.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_collections
import numpy as np

from experiments.bandit_speed import outside
from experiments.bandit_speed.rows import (
  Row,
  after_history,
  compare,
  make_row,
  progress,
  show,
  time_bandit,
)
from experiments.bandit_speed.settings import SpeedSettings, read
from experiments.common import launch, streams
from tanbr_jax import bandits
from tanbr_jax.environments import Environment
from tanbr_jax.online import estimates, regret, rollout
from tanbr_jax.report import workdir as reporting
from tanbr_jax.storage import atomic

FILE = "benchmark.json"
FLOOR, TORCH = "environment alone", "PyTorch NeuralUCB"
DEFAULT, PRACTICAL = "neural_ucb", "neural_ucb_practical"


def run(config: ml_collections.ConfigDict, *, workdir: str) -> None:
  """Measures everything, writes the run's folder and prints the table."""
  settings = read(config)
  folder = reporting.open_workdir(workdir, config, seeds=[0])
  environment = make_environment(settings)
  results = {"cores": os.cpu_count(), "rows": [], "regret": {}}

  def add(row: Row) -> None:
    results["rows"].append(row)
    print(progress(row), flush=True)
    atomic.write_json(folder / FILE, results)

  for count in settings.seed_counts:
    add(time_bandit(settings, FLOOR, fixed(settings), environment, count))
  for method in settings.bandits:
    beside = None
    if method in outside.PYXAB:
      beside = pyxab_row(settings, method, environment)
      add(beside)
    for title, options in variants(settings, method).items():
      bandit = streams.make_bandit(settings, method, **options)
      for count in settings.seed_counts:
        row = time_bandit(settings, title, bandit, environment, count)
        add(compare(row, beside, "x_pyxab"))
  if DEFAULT in settings.bandits:
    for row in beside_torch(settings, environment):
      add(row)
    if settings.regret_rounds:
      results["regret"] = regret_of_forms(settings, environment)
      atomic.write_json(folder / FILE, results)
  show(results["rows"])
  show_regret(results["regret"])
  print(f"results: {Path(folder) / FILE}")


def make_environment(settings: SpeedSettings) -> Environment:
  """The stream that every method plays on."""
  return streams.make_environment(settings, settings.family, settings.mix)


def fixed(settings: SpeedSettings) -> bandits.Bandit:
  """Fixed weights, whose rounds cost what the environment alone costs."""
  return bandits.fixed(
    num_experts=settings.num_experts,
    num_tasks=settings.num_tasks,
  )


def variants(settings: SpeedSettings, method: str) -> dict[str, dict[str, Any]]:
  """Titles of a method's rows and its options; two beside PyXAB."""
  if method not in outside.PYXAB:
    return {method: {}}
  same = dict(settings.pyxab[method])
  if method == "hoo":
    same["horizon"] = settings.num_rounds
  one_tree = same | dict(settings.one_tree[method])
  return {method: same, f"{method}, one tree": one_tree}


def pyxab_row(
  settings: SpeedSettings, method: str, environment: Environment
) -> Row:
  """The row of PyXAB's algorithm beside ours, or the reason it has none."""
  name = outside.PYXAB[method]
  title, options = f"PyXAB {name}", dict(settings.pyxab[method])
  if method == "hoo":
    options["rounds"] = settings.num_rounds
  try:
    seconds = outside.pyxab_seconds(name, environment, settings, **options)
  except ImportError as error:
    return {"method": title, "missing": str(error)}
  return make_row(title, 1, settings.chunk_size, seconds)


def beside_torch(
  settings: SpeedSettings, environment: Environment
) -> list[Row]:
  """PyTorch's row, then ours in the same rounds."""
  sizes = settings.torch
  try:
    seconds = outside.torch_seconds(environment, settings)
    beside = make_row(TORCH, 1, sizes.chunk_size, seconds)
  except ImportError as error:
    beside = {"method": TORCH, "missing": str(error)}
  # A stop loss of infinity ends the training before its first step and is
  # traced: the history is learnt by the program that is then timed.
  work = {"num_steps": sizes.max_steps, "stop_loss": 0.0}
  idle = streams.make_bandit(
    settings, PRACTICAL, **work | {"stop_loss": np.inf}
  )
  practical = streams.make_bandit(settings, PRACTICAL, **work)
  default = streams.make_bandit(settings, DEFAULT)
  rows = [beside]
  for title, learns, bandit in (
    (f"{PRACTICAL}, equal work", idle, practical),
    (f"{DEFAULT}, same rounds", default, default),
  ):
    for count in settings.seed_counts:
      row = after_history(settings, title, learns, bandit, environment, count)
      rows.append(compare(row, beside, "x_torch"))
  return rows


def regret_of_forms(
  settings: SpeedSettings, environment: Environment
) -> dict[str, float]:
  """Final expected regrets of NeuralUCB's two forms, and their paired ratio."""
  finals = {}
  for method in (DEFAULT, PRACTICAL):
    trace = rollout.run(
      streams.make_bandit(settings, method),
      environment,
      num_rounds=settings.regret_rounds,
      seeds=range(settings.regret_seeds),
      progress=False,
    )
    finals[method] = regret.expected(trace)[:, -1]
  ratio = estimates.paired_ratio(finals[DEFAULT], finals[PRACTICAL])
  found = reporting.estimate_entries("default_over_practical", ratio)
  for method, values in finals.items():
    entries = reporting.estimate_entries(method, estimates.mean(values))
    found |= entries
  return found


def show_regret(found: Mapping[str, float]) -> None:
  """Prints the regrets of NeuralUCB's two forms, if they were played."""
  for key in (DEFAULT, PRACTICAL, "default_over_practical"):
    if key in found:
      low, high = found[f"{key}_low"], found[f"{key}_high"]
      print(f"regret, {key}: {found[key]:.3f} [{low:.3f}, {high:.3f}]")


if __name__ == "__main__":
  launch.start(
    run, config="configs/bandit_speed/quick.py", workdir="runs/benchmark"
  )
