"""Regret of bandits on many synthetic streams at once, as numbers alone.

  python -m experiments.play_streams --config=configs/regret/many_experts.py

All streams of a config, families times mixes, are one program for each method:
a device is busy, and compiles once, where `experiments.regret` plays streams
one after the other and keeps every round. Writes `result.json`: final regrets,
and the largest ratio of the mean regret to the baseline's at any slot from
`FIRST_SLOT` on. What is there already is not played again.
Letters: S seeds, T rounds, N streams.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from experiments.common import launch, records, streams
from experiments.common.records import RunSettings
from experiments.common.streams import SyntheticSettings
from tanbr_jax import bandits
from tanbr_jax.bandits import Bandit
from tanbr_jax.bandits.base import as_pytree
from tanbr_jax.environments import Environment, mixes
from tanbr_jax.environments.landscapes.families import FAMILIES
from tanbr_jax.report import workdir as reporting
from tanbr_jax.storage import atomic

FILE = "result.json"
# The regret of a few slots is too small to divide by.
FIRST_SLOT = 20


def run(config: ml_collections.ConfigDict, *, workdir: str) -> None:
  """Plays every method on all streams and writes the run's folder."""
  settings = records.read(RunSettings, config)
  synthetic = records.read(SyntheticSettings, config)
  families = launch.names(config.families, known=FAMILIES, kind="family")
  mix_names = launch.names(config.mixes, known=mixes.PROCESSES, kind="mix")
  environments = {
    f"{family}/{mix}": streams.make_environment(synthetic, family, mix)
    for family in families
    for mix in mix_names
  }
  known = {*bandits.REGISTRY, *config.methods} - {"oracle"}
  named = launch.names(config.bandits, known=known, kind="bandit")
  launch.names(config.baseline, known=known, kind="baseline")
  methods = dict.fromkeys([config.baseline, *named])
  arms = {name: streams.make_bandit(synthetic, name) for name in methods}
  folder = reporting.open_workdir(workdir, config, seeds=settings.seeds)
  path = folder / FILE
  result: dict[str, Any] = {
    "num_experts": synthetic.num_experts,
    "num_tasks": synthetic.num_tasks,
    "num_rounds": settings.num_rounds,
    "first_seed": settings.first_seed,
    "num_seeds": settings.num_seeds,
    "streams": {name: {} for name in environments},
  }
  if path.exists():
    result = reporting.read_json(path, strict=True)
  means: dict[str, np.ndarray] = {}
  for method, bandit in arms.items():
    is_there = all(method in found for found in result["streams"].values())
    if is_there and method != config.baseline:
      continue
    found = play(bandit, list(environments.values()), settings)
    for stream, (mean, finals) in zip(environments, found, strict=True):
      if method == config.baseline:
        means[stream] = mean
      result["streams"][stream][method] = figures(mean, finals, means[stream])
      print(stream, method, result["streams"][stream][method], flush=True)
    atomic.write_json(path, result)


def figures(
  mean: np.ndarray, finals: np.ndarray, base: np.ndarray
) -> dict[str, float]:
  """What is kept of a method on a stream.

  Args:
    mean: [T] mean expected regret up to each slot.
    finals: [S] final regrets.
    base: [T] of the baseline.
  """
  ratios = (mean / base)[FIRST_SLOT - 1 :]
  return {
    "regret": float(mean[-1]),
    "median": float(np.median(finals)),
    "largest": float(np.max(finals)),
    "worst": float(np.max(ratios)),
    "worst_slot": int(np.argmax(ratios)) + FIRST_SLOT,
  }


def play(
  bandit: Bandit, environments: Sequence[Environment], settings: RunSettings
) -> list[tuple[np.ndarray, np.ndarray]]:
  """Mean regrets [T] and final regrets [S] of every stream."""
  seeds = jnp.asarray(settings.seeds, jnp.int32)

  def one(given: tuple, seed: jax.Array) -> jax.Array:
    return _play_seed(*given, seed, num_rounds=settings.num_rounds)

  @jax.jit
  def all_seeds(given: tuple, seeds: jax.Array) -> jax.Array:
    if settings.loop == "map":
      return jax.lax.map(lambda seed: one(given, seed), seeds)
    return jax.vmap(lambda seed: one(given, seed))(seeds)

  given = as_pytree(bandit), [as_pytree(one) for one in environments]
  found = np.asarray(all_seeds(given, seeds), np.float64)  # [S, T, N]
  found = np.cumsum(found, axis=1)
  return [
    (found[:, :, n].mean(0), found[:, -1, n]) for n in range(found.shape[2])
  ]


def _play_seed(
  bandit: Bandit,
  environments: Sequence[Environment],
  seed: jax.Array,
  *,
  num_rounds: int,
) -> jax.Array:
  """The regret of every round on every stream, [T, N]."""
  count = len(environments)
  first_key, bandit_key, slot_key = jax.random.split(jax.random.key(seed), 3)
  # One learner a stream, side by side; landscapes of a family are alike.
  learners = jax.vmap(bandit.init)(jax.random.split(bandit_key, count))
  worlds = [environment.init(first_key) for environment in environments]

  def together(parts: Sequence[Any]) -> Any:
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *parts)

  def step(carry: tuple, slot: jax.Array) -> tuple[tuple, jax.Array]:
    learners, worlds = carry
    keys = jax.random.split(jax.random.fold_in(slot_key, slot), 3)
    contexts = together(
      [
        one.context(world)
        for one, world in zip(environments, worlds, strict=True)
      ]
    )
    decisions = jax.vmap(bandit.select)(
      jax.random.split(keys[0], count), learners, contexts
    )
    feedbacks, regrets, next_worlds = [], [], []
    for n, (one, world) in enumerate(zip(environments, worlds, strict=True)):
      feedback, outcome, world = one.step(
        keys[1], world, decisions.merge_weights[n]
      )
      feedbacks.append(feedback)
      next_worlds.append(world)
      regrets.append(outcome.optimal_reward - outcome.expected_reward)
    learners = jax.vmap(bandit.update)(
      jax.random.split(keys[2], count),
      learners,
      contexts,
      decisions,
      together(feedbacks),
    )
    return (learners, next_worlds), jnp.stack(regrets)

  slots = jnp.arange(num_rounds, dtype=jnp.int32)
  return jax.lax.scan(step, (learners, worlds), slots)[1]


def read(folder: Any) -> list[Mapping[str, Any]]:
  """The results of all runs below a folder."""
  return [reporting.read_json(path) for path in sorted(folder.rglob(FILE))]


if __name__ == "__main__":
  launch.start(
    run, config="configs/regret/many_experts.py", workdir="runs/many_experts"
  )
