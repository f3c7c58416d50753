"""The trees of three experts as ternary pictures, at several times of a run.

  python -m experiments.ternary --config=configs/regret/ternary.py

Every method plays one seed of the same stream under a fixed mix, in stages;
between stages its tree is kept. Writes `trees.npz`, `summary.json` and
`ternary.png`; the figure is drawn from those files alone.
"""

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from experiments.common import drawing, launch, records, streams
from experiments.common.streams import SyntheticSettings
from tanbr_jax import bandits, partition
from tanbr_jax.checks.names import printable
from tanbr_jax.checks.ranges import Count, Range, Whole
from tanbr_jax.environments import Environment
from tanbr_jax.environments.landscapes.families import FAMILIES
from tanbr_jax.online import rounds
from tanbr_jax.partition.outlines import outlines
from tanbr_jax.plots import parts
from tanbr_jax.plots import ternary as plot_ternary
from tanbr_jax.plots.text import plain
from tanbr_jax.report import workdir as reporting
from tanbr_jax.storage import atomic

TREES, FIGURE = "trees.npz", "ternary.png"


@dataclasses.dataclass(frozen=True, kw_only=True)
class TernarySettings(SyntheticSettings):
  """All that the study reads; see configs/regret/ternary.py."""

  num_experts: Annotated[int, Range(3, 3, "[]")]
  family: str
  bandits: list[str]
  seed: Whole
  snapshots: tuple[Count, ...]
  num_points: Count
  zoom: Annotated[float, Range(1)]

  def __post_init__(self) -> None:
    """Raises a ValueError if a value is not allowed."""
    super().__post_init__()
    launch.names(self.family, known=FAMILIES, kind="family")
    counts = list(self.snapshots)
    if not counts or sorted(set(counts)) != counts:
      raise ValueError(f"snapshots must be rising round counts, got {counts}")


def read(config: ml_collections.ConfigDict) -> TernarySettings:
  """The config as a record.

  Raises:
    ValueError: a value that is not allowed, in one line.
  """
  known = {*bandits.REGISTRY, *config.methods}
  return records.read(
    TernarySettings,
    config,
    bandits=launch.names(config.bandits, known=known, kind="bandit"),
  )


def run(config: ml_collections.ConfigDict, *, workdir: str) -> None:
  """Plays every method, writes the run's folder and prints where it is."""
  settings = read(config)
  environment = streams.make_environment(settings, settings.family, "fixed")
  learners = {
    name: streams.make_bandit(settings, name) for name in settings.bandits
  }
  folder = reporting.open_workdir(workdir, config, seeds=[settings.seed])
  arrays, summary = {}, {}
  for method, bandit in learners.items():
    for count, snapshot in play(settings, method, bandit, environment).items():
      name = f"{method}/{count}"
      arrays |= {f"{name}:{key}": value for key, value in snapshot.items()}
      summary[f"{name}/num_leaves"] = len(snapshot["visits"])
      summary[f"{name}/simple_regret"] = float(snapshot["gaps"].mean())
  atomic.write_arrays(folder / TREES, arrays)
  reporting.write_summary(folder, summary)
  with drawing.surviving(FIGURE):
    draw(folder)
    print(f"figure: {printable(str(folder / FIGURE))}")


def play(
  settings: TernarySettings,
  method: str,
  bandit: bandits.Bandit,
  environment: Environment,
) -> dict[int, dict[str, np.ndarray]]:
  """Parts of a picture for each snapshot, by the number of rounds."""
  snapshots, num_points = settings.snapshots, settings.num_points
  seeds = np.asarray([settings.seed], np.int32)
  carry = rounds.init(bandit, environment, seeds)
  # Stages of one length, so that the rounds compile once.
  stage = math.gcd(*snapshots)
  played, gaps, found = [], [], {}
  for start in range(0, snapshots[-1], stage):
    carry, record = rounds.play(
      bandit,
      environment,
      carry,
      seeds,
      jnp.int32(start),
      chunk_size=stage,
      loop="vmap",
    )
    # What was played, and what it lost.
    played.append(np.asarray(record["merge_weights"][0]))
    gaps.append(
      np.asarray(record["optimal_reward"] - record["expected_reward"])[0]
    )
    # Where a picture is wanted: the tree, and the last rounds.
    if start + stage in snapshots:
      tree = find_tree(jax.tree.map(lambda leaf: leaf[0], carry.bandit), method)
      weights = np.concatenate(played)
      found[start + stage] = snapshot(tree, weights) | {
        "played": weights[-num_points:],
        "gaps": np.concatenate(gaps)[-num_points:],
        "optimum": best_weights(environment, carry),
      }
  return found


def find_tree(state: Any, method: str) -> partition.Tree:
  """The first tree in a bandit's state.

  Raises:
    ValueError: if there is none, or it is a forest: a picture shows one tree.
  """
  is_tree = lambda node: isinstance(node, partition.Tree)  # noqa: E731
  for node in jax.tree.leaves(state, is_leaf=is_tree):
    if is_tree(node):
      tree = jax.tree.map(np.asarray, node)
      used = tree.parents[: tree.num_nodes]
      if (num_roots := int(np.sum(used == tree.NO_PARENT))) > 1:
        raise ValueError(
          f"method {method!r} has {num_roots} trees, a picture shows one: "
          "give it context='none'"
        )
      return tree
  raise ValueError(f"method {method!r} has no tree over the merge weights")


def snapshot(tree: partition.Tree, weights: np.ndarray) -> dict[str, Any]:
  """Cells as padded corners [N, 6, 3] and how many weights lie in each."""
  cells = outlines(tree)
  kind = {
    partition.BoxTree: partition.box,
    partition.SimplexTree: partition.simplex,
  }[type(tree)]
  capacity = tree.parents.shape[0]
  locate = kind(num_experts=3, capacity=capacity).locate
  leaves = jax.jit(jax.vmap(locate, (None, 0)))(tree, jnp.asarray(weights))
  visits = np.bincount(np.asarray(leaves), minlength=capacity)
  # The last corner is repeated: that changes no polygon.
  corners = [
    np.concatenate([cell, np.repeat(cell[-1:], 6 - len(cell), axis=0)])
    for cell in cells.values()
  ]
  return {"cells": np.stack(corners), "visits": visits[list(cells)]}


def best_weights(environment: Environment, carry: rounds.Carry) -> np.ndarray:
  """The best weights of the slot that comes; the mix is fixed."""
  state = jax.tree.map(lambda leaf: leaf[0], carry.environment)
  centre = jnp.full(3, 1 / 3, jnp.float32)
  _, outcome, _ = environment.step(jax.random.key(0), state, centre)
  return np.asarray(outcome.optimal_weights)


def draw(folder: str | Path) -> None:
  """The figure, from the files of the run's folder: a row a method."""
  folder = Path(folder)
  config = reporting.read_json(folder / reporting.CONFIG)["config"]
  rows: dict[str, list[plot_ternary.TernaryPanel]] = {}
  arrays, _ = atomic.read_arrays(folder / TREES)
  for name in dict.fromkeys(key.split(":")[0] for key in arrays):
    rows.setdefault(name.rsplit("/", 1)[0], []).append(_panel(name, arrays))
  for row in rows.values():
    title = f"enlarged {config['zoom']:g} times"
    row.append(row[-1]._replace(title=title, zoom=config["zoom"]))
  figure = plot_ternary.ternary_tree(
    list(rows.values()),
    played_label=f"last {config['num_points']} played weights",
  )
  parts.save(figure, folder / FIGURE)


def _panel(
  name: str, arrays: Mapping[str, np.ndarray]
) -> plot_ternary.TernaryPanel:
  method, count = name.rsplit("/", 1)
  visits = arrays[f"{name}:visits"]
  return plot_ternary.TernaryPanel(
    title=f"{plain(method)}\nround {int(count):,}, {len(visits)} leaves",
    cells=arrays[f"{name}:cells"],
    visits=visits,
    played=arrays[f"{name}:played"],
    optimum=arrays[f"{name}:optimum"],
  )


if __name__ == "__main__":
  launch.start(run, config="configs/regret/ternary.py", workdir="runs/ternary")
