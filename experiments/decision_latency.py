"""Latency of one decision against the number of experts and of candidates.

  python -m experiments.decision_latency --config=configs/regret/latency.py

Times the merge weights of `select`, compiled, one decision a call, the call's
own overhead included; methods take turns. A method with a tree gets one that is
grown to N leaves, the shallowest leaf split first; a method with candidates of
its own gets N of them. Writes `latency.json` and `latency.png` and prints one
table. The paper states less than 0.4 ms with 192 experts and 20 leaves.
"""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from experiments.common import drawing, launch, records, streams
from experiments.common.streams import BanditSettings
from tanbr_jax import bandits, partition
from tanbr_jax.checks.names import printable
from tanbr_jax.checks.ranges import AtLeastTwo, Count, Positive
from tanbr_jax.online.estimates import Estimate
from tanbr_jax.plots import parts, sweeps
from tanbr_jax.report import tables
from tanbr_jax.report import workdir as reporting
from tanbr_jax.storage import atomic
from tanbr_jax.timing import latency

FILE, FIGURE = "latency.json", "latency.png"


@dataclasses.dataclass(frozen=True, kw_only=True)
class DecisionSettings(BanditSettings):
  """All that the study reads; see configs/regret/latency.py."""

  experts_swept: tuple[AtLeastTwo, ...]
  sizes_swept: tuple[Count, ...]
  default_size: Count
  sizes: Mapping[str, str]
  repeats: Count
  target_ms: Positive

  def __post_init__(self) -> None:
    """Raises a ValueError if a value is not allowed or a name unknown."""
    super().__post_init__()
    known = {*bandits.REGISTRY, *self.methods}
    for method, field in self.sizes.items():
      launch.names(method, known=known, kind="method")
      if field not in ("", "capacity", "num_candidates"):
        raise ValueError(
          "sizes must be 'capacity', 'num_candidates' or '', got "
          f"{field!r} of {method!r}"
        )


def run(config: ml_collections.ConfigDict, *, workdir: str) -> None:
  """Measures every point, writes the run's folder and prints the table."""
  settings = records.read(DecisionSettings, config)
  folder = reporting.open_workdir(workdir, config, seeds=[0])
  rows = []
  for num_experts, size in points(settings):
    rows += time_methods(
      dataclasses.replace(settings, num_experts=num_experts), size
    )
    atomic.write_json(folder / FILE, {"rows": rows})
  tables.print_rows(
    [
      {
        "method": row["method"],
        "experts": str(row["num_experts"]),
        "leaves or candidates": str(row["size"]),
        "median, ms": f"{row['median']:.3f}",
        "quartiles, ms": f"{row['low']:.3f} to {row['high']:.3f}",
      }
      for row in rows
    ]
  )
  with drawing.surviving(FIGURE):
    draw(folder)
    print(f"figure: {printable(str(folder / FIGURE))}")


def points(settings: DecisionSettings) -> list[tuple[int, int]]:
  """Experts and leaves: one of the two varies at a time."""
  return list(
    dict.fromkeys(
      [
        *((count, settings.default_size) for count in settings.experts_swept),
        *((settings.num_experts, size) for size in settings.sizes_swept),
      ]
    )
  )


def time_methods(settings: DecisionSettings, size: int) -> list[dict[str, Any]]:
  """One row a method; methods without a size only at the default size."""
  functions = {
    method: decide(settings, method, field, size)
    for method, field in settings.sizes.items()
    if field or size == settings.default_size
  }
  found = latency.wall_times(functions, repeats=settings.repeats)
  return [
    {
      "method": method,
      "num_experts": settings.num_experts,
      "size": size if settings.sizes[method] else None,
      "median": took.median,
      "low": took.low,
      "high": took.high,
    }
    for method, took in found.items()
  ]


def decide(
  settings: BanditSettings, method: str, field: str, size: int
) -> Callable[[], Any]:
  """A compiled decision, on a state of N leaves or candidates."""
  options, tree = {}, None
  if field == "num_candidates":
    options[field] = size
  elif field == "capacity":
    tree = full_tree(settings, method, size)
    options[field] = int(tree.parents.shape[0])
  bandit = streams.make_bandit(settings, method, **options)
  state = jax.jit(bandit.init)(jax.random.key(0))
  if tree is not None:
    source = state.bandit.source._replace(tree=tree)
    state = state._replace(bandit=state.bandit._replace(source=source))
  num_tasks = settings.num_tasks
  key, mix = jax.random.key(1), np.full(num_tasks, 1 / num_tasks)
  context = bandits.Context(jnp.asarray(mix, jnp.float32))
  # The weights alone: what else a decision tells is for after the slot.
  select = jax.jit(lambda *args: bandit.select(*args).merge_weights)
  return lambda: select(key, state, context)


def full_tree(
  settings: BanditSettings, method: str, num_leaves: int
) -> partition.Tree:
  """A tree of the method's kind that has just room for its N leaves.

  Boxes that miss the simplex are dropped but keep their place, so that a tree
  of boxes holds more than 2 N - 1 nodes. It is grown twice: once with room to
  spare, to count the nodes.
  """
  bandit = streams.make_bandit(settings, method, capacity=3)
  state = jax.eval_shape(bandit.init, jax.random.key(0))
  kind = type(state.bandit.source.tree)
  make = {
    partition.BoxTree: partition.box,
    partition.SimplexTree: partition.simplex,
  }[kind]
  experts = settings.num_experts
  if kind is partition.SimplexTree:
    return grow(
      make(num_experts=experts, capacity=2 * num_leaves - 1), num_leaves
    )
  spare = 2 * num_leaves * experts + 1
  tree = grow(make(num_experts=experts, capacity=spare), num_leaves)
  capacity = int(tree.num_nodes)
  return grow(make(num_experts=experts, capacity=capacity), num_leaves)


def grow(cells: partition.Partition, num_leaves: int) -> partition.Tree:
  """Splits the shallowest leaf, the oldest first, until there are N."""

  def is_smaller(tree: partition.Tree) -> jax.Array:
    return (jnp.sum(tree.is_leaf) < num_leaves) & ~tree.full

  def split(tree: partition.Tree) -> partition.Tree:
    far = jnp.iinfo(jnp.int32).max
    node = jnp.argmin(jnp.where(tree.is_leaf, tree.depths, far))
    return cells.split(tree, node.astype(jnp.int32))

  tree = jax.jit(lambda: jax.lax.while_loop(is_smaller, split, cells.init()))()
  found = int(np.sum(tree.is_leaf))
  if found < num_leaves:
    raise ValueError(f"the tree must have {num_leaves} leaves, got {found}")
  return tree


def draw(folder: str | Path) -> None:
  """The figure, from the files of the run's folder."""
  folder = Path(folder)
  config = reporting.read_json(folder / reporting.CONFIG)["config"]
  rows = reporting.read_json(folder / FILE)["rows"]
  experts, size = config["num_experts"], config["default_size"]
  by_experts = [row for row in rows if row["size"] in (None, size)]
  by_size = [
    row for row in rows if row["size"] and row["num_experts"] == experts
  ]
  panels = {
    f"experts E ({size} leaves or candidates)": series(
      by_experts, "num_experts"
    ),
    f"leaves or candidates N (E = {experts})": series(by_size, "size"),
  }
  figure = sweeps.latency(panels, target=config["target_ms"])
  parts.save(figure, folder / FIGURE)


def series(
  rows: list[Mapping[str, Any]], varied: str
) -> dict[str, dict[float, Estimate]]:
  """The table method -> value of the number -> median and quartiles."""
  found: dict[str, dict[float, Estimate]] = {}
  for row in rows:
    point = Estimate(row["median"], row["low"], row["high"])
    found.setdefault(row["method"], {})[row[varied]] = point
  return found


if __name__ == "__main__":
  launch.start(run, config="configs/regret/latency.py", workdir="runs/latency")
