"""Which seeds of a run a process plays, and on which of its devices.

Seeds never meet while they play: a device plays its part of them, and a process
those of its own devices. What a run saves and returns has one row a seed, on
however many devices it was played.

Letters: S seeds of a run, P processes.
"""

import dataclasses
from typing import Any

import jax
import numpy as np

_AXIS = "seeds"


@dataclasses.dataclass(frozen=True)
class Placement:
  """The seeds of this process, and its devices.

  Attributes:
    rows: of the run's seeds, which this process plays; a slice of S.
    num_processes: that play the run, one where it is this one alone.
    mesh: of this process's devices, a seed axis; None where JAX computes.
  """

  rows: slice
  num_processes: int = 1
  mesh: jax.sharding.Mesh | None = None

  @property
  def num_seeds(self) -> int:
    """How many seeds this process plays."""
    return self.rows.stop - self.rows.start

  def spread(self, tree: Any) -> Any:
    """Puts leaves with a row a seed on the devices, in equal parts.

    Where the devices do not divide the seeds the last one is played several
    times, and `collect` drops its copies.
    """
    if self.mesh is None:
      return tree
    missing = -self.num_seeds % self.mesh.size
    order = np.append(
      np.arange(self.num_seeds), np.full(missing, self.num_seeds - 1)
    )
    if missing:
      tree = jax.tree.map(lambda leaf: leaf[order], tree)
    parts = jax.sharding.NamedSharding(self.mesh, jax.P(_AXIS))
    return jax.device_put(tree, parts)

  def collect(self, tree: Any) -> Any:
    """The leaves of what was spread, with one row a seed again."""
    if self.mesh is None or self.num_seeds % self.mesh.size == 0:
      return tree
    return jax.tree.map(lambda leaf: leaf[: self.num_seeds], tree)

  def share(self, tree: Any) -> Any:
    """Puts leaves that all seeds read on every device."""
    if self.mesh is None:
      return tree
    everywhere = jax.sharding.NamedSharding(self.mesh, jax.P())
    return jax.device_put(tree, everywhere)


def place(num_seeds: int, mesh: jax.sharding.Mesh | None) -> Placement:
  """Shares a run's seeds among the processes of a mesh.

  Each gets as many as it has devices, up to one more; their order is that of
  the processes.

  Args:
    num_seeds: S.
    mesh: of any axes, of this process's devices alone or of all processes';
      None for this process and where JAX computes.

  Raises:
    ValueError: some processes have no device in the mesh, or there are more
      processes than seeds.
  """
  if mesh is None:
    return Placement(slice(0, num_seeds))
  devices = list(mesh.devices.flat)
  own = [d for d in devices if d.process_index == jax.process_index()]
  local = jax.sharding.Mesh(np.asarray(own), (_AXIS,)) if own else None
  if len(own) == len(devices):
    return Placement(slice(0, num_seeds), mesh=local)
  counts = np.bincount(
    [device.process_index for device in devices],
    minlength=jax.process_count(),
  )
  if not counts.all():
    raise ValueError(
      "the mesh must have devices of this process alone or of all processes, "
      f"got {counts.tolist()} devices by process"
    )
  ends = np.cumsum(counts) * num_seeds // len(devices)
  starts = np.append(0, ends[:-1])
  if np.any(starts == ends):
    raise ValueError(
      f"there must be at least one seed for each process, got {num_seeds} "
      f"seeds, {len(counts)} processes"
    )
  index = jax.process_index()
  rows = slice(int(starts[index]), int(ends[index]))
  return Placement(rows, len(counts), local)
