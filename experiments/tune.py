"""Tunes learners on synthetic environments, with one budget a stage.

  python -m experiments.tune --config=configs/regret/tune.py

Each method has a grid of equally many hyper-parameters; all points of a grid,
and all seeds, advance together under `vmap`, or with `--config.loop=map` one
after the other, which is faster on a CPU; `--config.devices=all` shares the
points among the devices. The score is the mean over
streams and seeds of the log expected regret. Tuning seeds lie apart from
those of `configs/regret/`. Writes `tune.json` and prints the best points; what
it holds already is not played again.
"""

import itertools
import math
from collections.abc import Mapping, Sequence

import ml_collections
import numpy as np

from experiments.common import launch, records, streams
from experiments.common.records import RunSettings
from experiments.common.streams import SyntheticSettings
from tanbr_jax import bandits
from tanbr_jax.environments import Environment, mixes
from tanbr_jax.environments.landscapes.families import FAMILIES
from tanbr_jax.online import regret
from tanbr_jax.report import workdir as reporting
from tanbr_jax.storage import atomic


def run(config: ml_collections.ConfigDict, *, workdir: str) -> None:
  """Tunes every learner, writes the run's folder and prints the best points."""
  learners = check(config)
  settings = records.read(RunSettings, config)
  synthetic = records.read(SyntheticSettings, config)
  environments = make_environments(config, synthetic)
  options = {method: points(config.grids[method]) for method in learners}
  arms = {
    method: [
      streams.make_bandit(synthetic, method, **o) for o in options[method]
    ]
    for method in learners
  }
  folder = reporting.open_workdir(workdir, config, seeds=settings.seeds)
  path = folder / "tune.json"
  results = reporting.read_json(path, strict=True) if path.exists() else {}
  for method in learners:
    if method not in results:
      results[method] = tune(
        arms[method], options[method], environments, settings
      )
      atomic.write_json(path, results)
    best = min(results[method], key=lambda row: row["score"])
    print(method, *(f"{k}={v:.4g}" for k, v in best.items()), flush=True)


def check(config: ml_collections.ConfigDict) -> list[str]:
  """The learners to tune, whose grids must be equally large."""
  sizes = {name: len(points(grid)) for name, grid in config.grids.items()}
  if len(set(sizes.values())) != 1:
    raise ValueError(f"grids must have the same number of points, got {sizes}")
  if not config.learners:
    return sorted(sizes)
  return launch.names(config.learners, known=sizes, kind="learner")


def make_environments(
  config: ml_collections.ConfigDict, synthetic: SyntheticSettings
) -> dict[str, Environment]:
  """The environment of every `<family>/<mix>`."""
  return {
    f"{family}/{mix}": streams.make_environment(synthetic, family, mix)
    for mix, family in itertools.product(
      launch.names(config.mixes, known=mixes.PROCESSES, kind="mix"),
      launch.names(config.families, known=FAMILIES, kind="family"),
    )
  }


def points(grid: Mapping[str, Sequence[float]]) -> list[dict[str, float]]:
  """All combinations of a grid's values."""
  names = sorted(grid)
  return [
    dict(zip(names, values, strict=True))
    for values in itertools.product(*(grid[name] for name in names))
  ]


def tune(
  arms: Sequence[bandits.Bandit],
  options: Sequence[Mapping[str, float]],
  environments: Mapping[str, Environment],
  settings: RunSettings,
) -> list[dict[str, float]]:
  """One row a point: its values, its regret in each stream, its score."""
  rows = [dict(point) for point in options]
  for stream, environment in environments.items():
    traces = settings.play_together(arms, environment, progress=False)
    for row, trace in zip(rows, traces, strict=True):
      finals = regret.expected(trace)[:, -1]
      row[stream] = float(np.exp(np.log(finals).mean()))
  for row in rows:
    regrets = [row[stream] for stream in environments]
    row["score"] = sum(map(math.log, regrets)) / len(regrets)
  return rows


if __name__ == "__main__":
  launch.start(run, config="configs/regret/tune.py", workdir="runs/tune")
