"""Regret of any bandits on synthetic environments whose optimum is known.

  python -m experiments.regret --config=configs/regret/quick.py

Compares the named bandits on families of rewards times kinds of task mix times
settings of the config, all on the same landscapes, streams and seeds; writes
the run's folder (trace.npz, summary.json, figures, report.html) and prints one
table. A run that is started again with the same `--workdir` resumes.
`--config.devices=all` spreads the seeds over the devices of this machine, and
the same command on each of N hosts over theirs, with

  --distributed --coordinator=HOST:PORT --num_processes=N --process_id=I

Or streams run in processes of their own, each with a workdir of its own, and
are put together by `experiments.merge_runs`.
"""

import dataclasses
import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import ml_collections
import numpy as np

from experiments.common import drawing, launch, records, streams
from experiments.common.records import RunSettings
from experiments.common.streams import SyntheticSettings
from experiments.regret import figures
from tanbr_jax import bandits
from tanbr_jax.checks.names import check_name
from tanbr_jax.environments import Environment, mixes
from tanbr_jax.environments.landscapes.families import FAMILIES
from tanbr_jax.online import estimates, processes, regret, rollout, trace
from tanbr_jax.online.trace import Trace
from tanbr_jax.report import tables
from tanbr_jax.report import workdir as reporting

COLUMNS = (
  tables.Column("expected_regret", "expected regret", 1),
  tables.Column("realised_regret", "realised regret", 1),
  tables.Column("growth_exponent", "growth exponent", 2),
  tables.Column("ratio", "ratio to baseline", 3),
  tables.Column("simple_regret", "simple regret", 4),
  tables.Column("optimal_play_rate", "optimal play", 2),
  tables.Column("model_error", "model error", 4),
  tables.Column("rounds_per_second", "rounds/s per seed", 0),
  tables.Column("slots_per_second", "rounds/s, all seeds", 0),
)


class Job(NamedTuple):
  """One stream and one method on it."""

  stream: str
  method: str
  bandit: bandits.Bandit
  environment: Environment


def run(
  config: ml_collections.ConfigDict, *, workdir: str, progress: bool
) -> None:
  """Plays every method on every stream and writes the run's folder."""
  settings, jobs = records.read(RunSettings, config), build(config)
  folder = reporting.open_workdir(workdir, config, seeds=settings.seeds)
  found = {}
  for group in groups(jobs, config.together):
    names = [f"{job.stream}/{job.method}" for job in group]
    played = settings.play_together(
      [job.bandit for job in group],
      group[0].environment,
      workdir=folder,
      name=names[0],
      progress=progress,
    )
    found |= zip(names, played, strict=True)
  order = (f"{job.stream}/{job.method}" for job in jobs)
  traces = {name: found[name] for name in order}

  def conclude() -> None:
    trace.save(folder / reporting.TRACE, traces)
    reporting.write_summary(folder, summarise(traces, config.baseline))
    draw(folder)

  processes.first_alone(conclude)


def build(config: ml_collections.ConfigDict) -> list[Job]:
  """Every bandit and environment of the config, checked before long work."""
  families = launch.names(config.families, known=FAMILIES, kind="family")
  mix_names = launch.names(config.mixes, known=mixes.PROCESSES, kind="mix")
  # An oracle needs a policy, which these environments keep to themselves: the
  # regret is counted from their optimum.
  known = {*bandits.REGISTRY, *config.methods} - {"oracle"}
  methods = launch.names(config.bandits, known=known, kind="bandit")
  launch.names(config.baseline, known=known, kind="baseline")
  launch.names(config.figures, known=figures.FIGURES, kind="figure")
  return [
    Job(
      "/".join(filter(None, (family, mix, name))),
      method,
      streams.make_bandit(setting, method),
      streams.make_environment(setting, family, mix),
    )
    for name, setting in read_settings(config).items()
    for family, mix, method in itertools.product(families, mix_names, methods)
  ]


def groups(jobs: list[Job], together: bool) -> list[list[Job]]:
  """Jobs one by one, or those of one stream and structure together."""
  if not together:
    return [[job] for job in jobs]
  found: dict[Any, list[Job]] = {}
  for job in jobs:
    key = job.stream, rollout.structure(job.bandit)
    found.setdefault(key, []).append(job)
  return list(found.values())


def read_settings(
  config: ml_collections.ConfigDict,
) -> dict[str, SyntheticSettings]:
  """The streams once for each of the config's `settings`, with its overrides.

  Without any, the config's own under an empty name.

  Raises:
    ValueError: a name cannot be part of a stream's, or a field is not known.
  """
  for name in config.settings:
    check_name("setting", name)
  base = records.read(SyntheticSettings, config)
  found = {}
  for name, overrides in config.settings.to_dict().items():
    for field in overrides:
      if not hasattr(base, field):
        known = launch.suggest(field, vars(base))
        raise ValueError(f"setting {name!r}: unknown field {field!r}{known}")
    found[name] = dataclasses.replace(base, **overrides)
  return found or {"": base}


def summarise(traces: Mapping[str, Trace], baseline: str) -> dict[str, float]:
  """Flat figures of every stream and method, then over all streams.

  `<stream>/<method>/ratio` is the geometric mean over seeds of the method's
  final expected regret over the baseline's, `all/<method>/ratio` that over all
  streams and seeds; neither is there if the baseline was not run.
  """
  summary: dict[str, float] = {}
  finals: dict[str, dict[str, np.ndarray]] = {}
  for stream, group in drawing.by_stream(traces).items():
    scale = regret.reward_range(group.values())
    finals[stream] = {}
    for method, one in group.items():
      finals[stream][method] = regret.expected(one)[:, -1]
      for key, value in reporting.summarise(one, reward_range=scale).items():
        summary[f"{stream}/{method}/{key}"] = value
  return summary | _ratios(finals, baseline)


def _ratios(
  finals: Mapping[str, Mapping[str, np.ndarray]], baseline: str
) -> dict[str, float]:
  summary: dict[str, float] = {}
  pairs: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {}
  for stream, group in finals.items():
    for method, values in group.items():
      if baseline in group and method != baseline:
        ratio = estimates.paired_ratio(values, group[baseline])
        summary |= reporting.estimate_entries(f"{stream}/{method}/ratio", ratio)
        pairs.setdefault(method, []).append((values, group[baseline]))
  for method, entries in pairs.items():
    # A seed has the same mixes in every family: it counts once.
    with np.errstate(divide="ignore", invalid="ignore"):
      logs = np.log(np.asarray(entries)).mean(axis=0)
    ratio = estimates.paired_ratio(*np.exp(logs))
    summary |= reporting.estimate_entries(f"all/{method}/ratio", ratio)
  return summary


def draw(workdir: Path) -> None:
  """Figures, table and report from the files of the run's folder."""
  config = reporting.read_json(workdir / reporting.CONFIG)["config"]
  drawing.finish(
    workdir,
    title="Regret on synthetic environments",
    columns=COLUMNS,
    figures=figures.draw(workdir, config),
    notes=[
      f"{config['num_experts']} experts, {config['num_tasks']} tasks, "
      f"{config['num_rounds']} rounds, {config['num_seeds']} seeds; a stream's "
      "own settings come last in its name. Brackets are 95 % intervals over "
      "seeds, Student's, and for growth exponents the bootstrap's. Ratios are "
      "geometric means of paired final expected regrets over "
      f"{config['baseline']}. Simple regret and model error are means of the "
      "last quarter; optimal play is the share of rounds whose gap is within "
      "1 % of the range of the stream's rewards."
    ],
  )
