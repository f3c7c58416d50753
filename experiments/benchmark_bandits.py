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
rounds" is our default schedule, which trains less. The regret of the two
presets, paired over seeds, says what that costs.

Writes `benchmark.json`. What is not installed is a row with its reason.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ml_collections
import numpy as np

from experiments.bandit_speed import outside
from experiments.bandit_speed.rows import (
  MIN_CHUNKS,
  Row,
  after_history,
  compare,
  make_row,
  measure,
  progress,
  show,
)
from experiments.common import launch, streams
from tanbr_jax import bandits
from tanbr_jax.environments import mixes
from tanbr_jax.environments.landscapes import families
from tanbr_jax.online import estimates, regret, rollout
from tanbr_jax.report import workdir as reporting
from tanbr_jax.storage import atomic

COMMAND_LINE = launch.Flags(
  "configs/bandit_speed/quick.py", workdir="runs/benchmark"
)
FILE = "benchmark.json"
FLOOR, TORCH = "environment alone", "PyTorch NeuralUCB"
DEFAULT, PRACTICAL = "neural_ucb", "neural_ucb_practical"


def main() -> None:
  run(COMMAND_LINE.config, workdir=COMMAND_LINE.workdir)


def run(config: ml_collections.ConfigDict, *, workdir: str) -> None:
  """Measures everything, writes the run's folder and prints the table."""
  methods, counts = check(config)
  folder, messages = reporting.open_workdir(workdir, config, seeds=[0])
  for message in messages:
    print(message)
  environment = streams.make_environment(config, config.family, config.mix)
  results = {"cores": os.cpu_count(), "rows": [], "regret": {}}

  def add(row: Row) -> None:
    results["rows"].append(row)
    print(progress(row), flush=True)
    atomic.write_json(folder / FILE, results)

  for count in counts:
    add(measure(config, FLOOR, fixed(config), environment, count))
  for method in methods:
    beside = None
    if method in outside.PYXAB:
      beside = pyxab_row(config, method, environment)
      add(beside)
    for title, options in variants(config, method).items():
      for count in counts:
        bandit = streams.make_bandit(config, method, **options)
        row = measure(config, title, bandit, environment, count)
        add(compare(row, beside, "x_pyxab"))
  if DEFAULT in methods:
    for row in beside_torch(config, environment, counts):
      add(row)
    if config.regret_rounds:
      results["regret"] = preset_regret(config, environment)
      atomic.write_json(folder / FILE, results)
  show(results["rows"])
  show_regret(results["regret"])
  print(f"results: {Path(folder) / FILE}")


def check(
  config: ml_collections.ConfigDict,
) -> tuple[list[str], list[int]]:
  """The methods and the numbers of seeds, checked before any work."""
  known = {*bandits.REGISTRY, *config.methods} - {"oracle"}
  methods = launch.names(config.bandits, known=known, kind="bandit")
  launch.names(config.family, known=families.FAMILIES, kind="family")
  launch.names(config.mix, known=mixes.PROCESSES, kind="mix")
  try:
    counts = [int(word) for word in str(config.seed_counts).split(",")]
  except ValueError:
    counts = [0]
  if min(counts) < 1:
    raise ValueError(
      "seed_counts must be a comma list of positive integers, got "
      f"{config.seed_counts!r}"
    )
  if config.loop not in ("vmap", "map"):
    raise ValueError(f"loop must be 'vmap' or 'map', got {config.loop!r}")
  for where, one in (("", config), ("torch.", config.torch)):
    if one.chunk_size < 1 or one.num_rounds < MIN_CHUNKS * one.chunk_size:
      raise ValueError(
        f"{where}num_rounds must be at least {MIN_CHUNKS} chunks, got "
        f"num_rounds={one.num_rounds}, chunk_size={one.chunk_size}"
      )
  if config.torch.history % config.torch.chunk_size:
    raise ValueError(
      "torch.history must be whole chunks, got "
      f"history={config.torch.history}, chunk_size={config.torch.chunk_size}"
    )
  return methods, counts


def fixed(config: ml_collections.ConfigDict) -> bandits.Bandit:
  """Plays the same weights always: what is left is the environment."""
  return bandits.fixed(
    num_experts=config.num_experts, num_tasks=config.num_tasks
  )


def variants(
  config: ml_collections.ConfigDict, method: str
) -> dict[str, dict[str, Any]]:
  """Titles of a method's rows and its options; two beside PyXAB."""
  if method not in outside.PYXAB:
    return {method: {}}
  same = dict(config.pyxab[method])
  if method == "hoo":
    same["horizon"] = config.num_rounds
  one_tree = same | dict(config.one_tree[method])
  return {method: same, f"{method}, one tree": one_tree}


def pyxab_row(
  config: ml_collections.ConfigDict, method: str, environment: Any
) -> Row:
  """The row of the algorithm of PyXAB beside ours, or why there is none."""
  name = outside.PYXAB[method]
  title, options = f"PyXAB {name}", dict(config.pyxab[method])
  if method == "hoo":
    options["rounds"] = config.num_rounds
  try:
    seconds = outside.pyxab_seconds(name, environment, config, **options)
  except ImportError as error:
    return {"method": title, "missing": str(error)}
  return make_row(title, 1, config.chunk_size, seconds)


def beside_torch(
  config: ml_collections.ConfigDict, environment: Any, counts: Sequence[int]
) -> list[Row]:
  """PyTorch's row, then ours in the same rounds."""
  sizes = config.torch
  try:
    seconds = outside.torch_seconds(environment, config)
    beside = make_row(TORCH, 1, sizes.chunk_size, seconds)
  except ImportError as error:
    beside = {"method": TORCH, "missing": str(error)}
  # A stop loss of infinity ends the training before its first step and is
  # traced: the history is learnt by the program that is then timed.
  work = {"num_steps": sizes.max_steps, "stop_loss": 0.0}
  idle = streams.make_bandit(config, PRACTICAL, **work | {"stop_loss": np.inf})
  practical = streams.make_bandit(config, PRACTICAL, **work)
  default = streams.make_bandit(config, DEFAULT)
  rows = [beside]
  for title, learns, bandit in (
    (f"{PRACTICAL}, equal work", idle, practical),
    (f"{DEFAULT}, same rounds", default, default),
  ):
    for count in counts:
      row = after_history(config, title, learns, bandit, environment, count)
      rows.append(compare(row, beside, "x_torch"))
  return rows


def preset_regret(
  config: ml_collections.ConfigDict, environment: Any
) -> dict[str, float]:
  """Final expected regrets of NeuralUCB's presets, and their paired ratio."""
  finals = {}
  for method in (DEFAULT, PRACTICAL):
    trace = rollout.run(
      streams.make_bandit(config, method),
      environment,
      num_rounds=config.regret_rounds,
      seeds=range(config.regret_seeds),
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
  """Prints the presets' regrets, if they were played."""
  for key in (DEFAULT, PRACTICAL, "default_over_practical"):
    if key in found:
      low, high = found[f"{key}_low"], found[f"{key}_high"]
      print(f"regret, {key}: {found[key]:.3f} [{low:.3f}, {high:.3f}]")


if __name__ == "__main__":
  launch.start(main, command_line=COMMAND_LINE)
