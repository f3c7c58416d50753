"""Regret of every bandit on synthetic environments whose optimum is known.

  python -m experiments.regret --config=configs/regret/quick.py

Compares the named bandits on families of rewards times kinds of task mix, all
on the same landscapes, streams and seeds; writes the run's folder (trace.npz,
summary.json, figures, report.html) and prints one table. A run that is started
again with the same `--workdir` resumes.
"""

import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import ml_collections
import numpy as np

from experiments import drawing, launch, streams
from tanbr_jax import (
  bandits,
  estimates,
  regret,
  reporting,
  rollout,
  tables,
  trace,
)
from tanbr_jax.environments.families import FAMILIES
from tanbr_jax.trace import Trace

COMMAND_LINE = launch.Flags(
  "configs/regret/quick.py", workdir="runs/regret_quick"
)
MIXES = ("drift", "fixed", "piecewise")
COLUMNS = (
  tables.Column("expected_regret", "expected regret", 1),
  tables.Column("realised_regret", "realised regret", 1),
  tables.Column("growth_exponent", "growth exponent", 2),
  tables.Column("ratio", "ratio to baseline", 3),
  tables.Column("mean_reward", "mean reward", 4),
  tables.Column("rounds_per_second", "rounds/s per seed", 0),
  tables.Column("slots_per_second", "rounds/s, all seeds", 0),
)


class Job(NamedTuple):
  """One stream and one method on it."""

  stream: str
  method: str
  bandit: bandits.Bandit
  environment: Any


def main() -> None:
  run(
    COMMAND_LINE.config,
    workdir=COMMAND_LINE.workdir,
    progress=COMMAND_LINE.progress,
  )


def run(
  config: ml_collections.ConfigDict, *, workdir: str, progress: bool
) -> None:
  """Plays every method on every stream and writes the run's folder."""
  jobs = build(config)
  seeds = range(config.first_seed, config.first_seed + config.num_seeds)
  folder, messages = reporting.open_workdir(workdir, config, seeds=seeds)
  for message in messages:
    print(message)
  traces = {}
  for job in jobs:
    name = f"{job.stream}/{job.method}"
    traces[name] = rollout.run(
      job.bandit,
      job.environment,
      num_rounds=config.num_rounds,
      seeds=seeds,
      chunk_size=config.chunk_size,
      workdir=folder,
      progress=progress,
      name=name,
      loop=config.loop,
    )
  trace.save(folder / reporting.TRACE, traces)
  reporting.write_summary(folder, summarise(traces, config.baseline))
  draw(folder)


def build(config: ml_collections.ConfigDict) -> list[Job]:
  """Every bandit and environment of the config, checked before long work."""
  for field in ("num_rounds", "num_seeds", "chunk_size"):
    if config[field] < 1:
      raise ValueError(f"{field} must be at least 1, got {config[field]}")
  families = launch.names(config.families, known=FAMILIES, kind="family")
  mixes = launch.names(config.mixes, known=MIXES, kind="mix")
  # An oracle needs a policy, which these environments keep to themselves: the
  # regret is counted from their optimum.
  known = {*bandits.REGISTRY, *config.methods} - {"oracle"}
  methods = launch.names(config.bandits, known=known, kind="bandit")
  launch.names(config.baseline, known=known, kind="baseline")
  return [
    Job(
      f"{family}/{mix}",
      method,
      streams.make_bandit(config, method),
      streams.make_environment(config, family, mix),
    )
    for family, mix, method in itertools.product(families, mixes, methods)
  ]


def summarise(traces: Mapping[str, Trace], baseline: str) -> dict[str, float]:
  """Flat figures of every stream and method, then over all streams.

  `<stream>/<method>/ratio` is the geometric mean over seeds of the method's
  final expected regret over the baseline's, `all/<method>/ratio` that over all
  streams and seeds; neither is there if the baseline was not run.
  """
  summary, finals = {}, {}
  for name, one in traces.items():
    for key, value in reporting.summarise(one).items():
      summary[f"{name}/{key}"] = value
    finals[name] = regret.expected(one)[:, -1]
  pairs: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {}
  for name, values in finals.items():
    stream, _, method = name.rpartition("/")
    base = finals.get(f"{stream}/{baseline}")
    if base is None or method == baseline:
      continue
    ratio = estimates.paired_ratio(values, base)
    summary |= reporting.estimate_entries(f"{name}/ratio", ratio)
    pairs.setdefault(method, []).append((values, base))
  for method, entries in pairs.items():
    values, bases = (
      np.concatenate(side) for side in zip(*entries, strict=True)
    )
    ratio = estimates.paired_ratio(values, bases)
    summary |= reporting.estimate_entries(f"all/{method}/ratio", ratio)
  return summary


def draw(workdir: Path) -> None:
  """Figures, table and report from the files of the run's folder."""
  settings = reporting.read_json(workdir / reporting.CONFIG)["config"]
  figures = []
  for stream, traces in drawing.load_groups(workdir).items():
    figures += drawing.draw_stream(
      workdir,
      traces,
      prefix=stream.replace("/", "_") + "_",
      where=stream.replace("/", ", ") + ": ",
    )
  drawing.finish(
    workdir,
    title="Regret on synthetic environments",
    columns=COLUMNS,
    figures=figures,
    notes=[
      f"{settings['num_experts']} experts, {settings['num_tasks']} tasks, "
      f"{settings['num_rounds']} rounds, {settings['num_seeds']} seeds. "
      "Brackets are 95 % Student intervals over seeds. Ratios are geometric "
      f"means of paired final expected regrets over {settings['baseline']}."
    ],
  )


if __name__ == "__main__":
  launch.run(main, command_line=COMMAND_LINE)
