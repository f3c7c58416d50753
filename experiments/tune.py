"""Tunes learners on synthetic environments, with one budget a stage.

  python -m experiments.tune --config=configs/regret/tune.py

Each method has a grid of equally many hyper-parameters; all points of a grid,
and all seeds, advance together under `vmap`, or with `--config.loop=map` one
after the other, which is faster on a CPU. The score is the mean over
streams and seeds of the log expected regret. Tuning seeds lie apart from
those of `configs/regret/`. Writes `tune.json` and prints the best points; what
it holds already is not played again.
"""

import itertools
import json
import math

import jax
import jax.numpy as jnp
import numpy as np

from experiments.common import launch, streams
from tanbr_jax import bandits
from tanbr_jax.online import rounds
from tanbr_jax.report import workdir as reporting
from tanbr_jax.storage import atomic

COMMAND_LINE = launch.Flags("configs/regret/tune.py", workdir="runs/tune")


def main() -> None:
  config = COMMAND_LINE.config
  learners = check(config)
  workdir, _ = reporting.open_workdir(
    COMMAND_LINE.workdir, config, seeds=seeds(config)
  )
  path = workdir / "tune.json"
  results = json.loads(path.read_text()) if path.exists() else {}
  for method in learners:
    if method not in results:
      results[method] = tune(config, method)
      atomic.write_json(path, results)
    best = min(results[method], key=lambda row: row["score"])
    print(method, *(f"{k}={v:.4g}" for k, v in best.items()), flush=True)


def seeds(config) -> range:
  return range(config.first_seed, config.first_seed + config.num_seeds)


def check(config) -> list[str]:
  """The learners to tune, whose grids must be equally large."""
  sizes = {name: len(points(grid)) for name, grid in config.grids.items()}
  if len(set(sizes.values())) != 1:
    raise ValueError(f"grids must have the same number of points, got {sizes}")
  if not config.learners:
    return sorted(sizes)
  return launch.names(config.learners, known=sizes, kind="learner")


def points(grid) -> list[dict[str, float]]:
  """All combinations of a grid's values."""
  names = sorted(grid)
  return [
    dict(zip(names, values, strict=True))
    for values in itertools.product(*(grid[name] for name in names))
  ]


def tune(config, method: str) -> list[dict[str, float]]:
  """One row a point: its values, its regret in each stream, its score."""
  options = points(config.grids[method])
  arms = [streams.make_bandit(config, method, **point) for point in options]
  stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *arms)
  rows = [dict(point) for point in options]
  for mix, family in itertools.product(
    config.mixes.split(","), config.families.split(",")
  ):
    environment = streams.make_environment(config, family, mix)
    finals = play(stacked, environment, config)
    for row, final in zip(rows, finals, strict=True):
      row[f"{family}/{mix}"] = float(np.exp(np.log(final).mean()))
  for row in rows:
    regrets = [value for key, value in row.items() if "/" in key]
    row["score"] = sum(map(math.log, regrets)) / len(regrets)
  return rows


def play(stacked: bandits.Bandit, environment, config) -> np.ndarray:
  """Final expected regrets [G, S] of G stacked bandits."""
  seed_array = np.asarray(seeds(config), np.int32)

  @jax.jit
  def finals(stacked, environment):
    def one(bandit):
      carry = rounds.init(bandit, environment, seed_array)
      _, record = rounds.play(
        bandit,
        environment,
        carry,
        seed_array,
        jnp.int32(0),
        chunk_size=config.num_rounds,
        loop=config.loop,
      )
      return jnp.sum(
        record["optimal_reward"] - record["expected_reward"], axis=-1
      )

    if config.loop == "map":
      return jax.lax.map(one, stacked)
    return jax.vmap(one)(stacked)

  return np.asarray(finals(stacked, environment))


if __name__ == "__main__":
  launch.start(main, command_line=COMMAND_LINE)
