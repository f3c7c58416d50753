"""Regret of any bandits on synthetic environments whose optimum is known.

  python -m experiments.regret --config=configs/regret/quick.py

Compares the named bandits on families of rewards times kinds of task mix times
settings of the config, all on the same landscapes, streams and seeds; writes
the run's folder (trace.npz, summary.json, figures, report.html) and prints one
table. A run that is started again with the same `--workdir` resumes. Streams
may run in processes of their own, each with a workdir of its own, and be put
together by `experiments.merge_runs`.
"""

import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import ml_collections
import numpy as np

from experiments.common import drawing, launch, streams
from experiments.regret import figures
from tanbr_jax import bandits
from tanbr_jax.environments import mixes
from tanbr_jax.environments.landscapes.families import FAMILIES
from tanbr_jax.online import estimates, regret, rollout, trace
from tanbr_jax.online.trace import Trace
from tanbr_jax.report import tables
from tanbr_jax.report import workdir as reporting

COMMAND_LINE = launch.Flags(
  "configs/regret/quick.py", workdir="runs/regret_quick"
)
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
    for name, setting in settings(config).items()
    for family, mix, method in itertools.product(families, mix_names, methods)
  ]


def settings(
  config: ml_collections.ConfigDict,
) -> dict[str, ml_collections.ConfigDict]:
  """The config once for each of its `settings`, with that one's overrides.

  Without any, the config itself under an empty name.

  Raises:
    ValueError: a name cannot be part of a stream's, or a field is not known.
  """
  for name in (*config.settings, *config.methods):
    if "/" in name or ":" in name or "," in name:
      raise ValueError(f"a name must not hold '/', ':' or ',', got {name!r}")
  found = {}
  for name, overrides in config.settings.items():
    one = config.copy_and_resolve_references()
    for field, value in overrides.items():
      if field not in one:
        known = launch.suggest(field, one)
        raise ValueError(f"setting {name!r}: unknown field {field!r}{known}")
      one[field] = value
    found[name] = one
  return found or {"": config}


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
