"""Where helpers are: random waypoints, and positions of a CSV file.

Letters: T times, E helpers.
"""

import csv
import os
from pathlib import Path

import numpy as np

from tanbr_jax.storage import atomic
from tanbr_jax.wireless.units import check_positive

_TITLES = ["time_s", "node", "x_m", "y_m"]


def random_waypoint(
  rng: np.random.Generator,
  *,
  num_nodes: int,
  num_times: int,
  interval_s: float = 1.0,
  radius_m: float = 150.0,
  speed_m_per_s: tuple[float, float] = (0.5, 1.5),
) -> np.ndarray:
  """Positions of nodes that walk to random points of a disc, one after another.

  Args:
    rng: consumed.
    num_nodes: E.
    num_times: T.
    interval_s: seconds between two times.
    radius_m: of the disc.
    speed_m_per_s: least and largest speed; one is drawn for every walk.

  Returns:
    [T, E, 2] metres from the disc's centre.

  Raises:
    ValueError: if a number is not positive or the speeds are not ascending.
  """
  for name, count in (("num_nodes", num_nodes), ("num_times", num_times)):
    if count < 1:
      raise ValueError(f"{name} must be at least 1, got {name}={count}")
  check_positive("interval_s", interval_s)
  check_positive("radius_m", radius_m)
  slow, fast = check_positive("speed_m_per_s", speed_m_per_s)
  if slow > fast:
    raise ValueError(
      f"speed_m_per_s must be ascending, got speed_m_per_s={speed_m_per_s}"
    )
  place = _in_disc(rng, num_nodes, radius_m)
  aim = _in_disc(rng, num_nodes, radius_m)
  speed = rng.uniform(slow, fast, num_nodes)
  found = np.empty((num_times, num_nodes, 2))
  for time in range(num_times):
    found[time] = place
    way = aim - place
    left = np.linalg.norm(way, axis=1)
    step = speed * interval_s
    arrives = left <= step
    # A node that arrives stays there until the next time.
    share = np.where(arrives, 1.0, step / np.maximum(left, step))
    place = place + way * share[:, None]
    aim = np.where(arrives[:, None], _in_disc(rng, num_nodes, radius_m), aim)
    speed = np.where(arrives, rng.uniform(slow, fast, num_nodes), speed)
  return found


def _in_disc(
  rng: np.random.Generator, count: int, radius_m: float
) -> np.ndarray:
  radius = radius_m * np.sqrt(rng.uniform(size=count))
  angle = rng.uniform(0, 2 * np.pi, count)
  return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)


def distances_m(
  positions_m: np.ndarray,
  *,
  most_m: float | None = None,
  least_m: float = 1.0,
) -> np.ndarray:
  """Distances of nodes from the user at the origin.

  Args:
    positions_m: [T, E, 2].
    most_m: the largest distance, to which all are scaled if it is exceeded
      (the paper maps GPS traces to at most 150 m); None scales nothing.
    least_m: shorter distances count as this one: the path loss has no meaning
      at the antenna itself.

  Returns:
    [T, E] metres.

  Raises:
    ValueError: if a position is not finite or a distance not positive.
  """
  check_positive("least_m", least_m)
  if not np.isfinite(positions_m).all():
    raise ValueError("positions_m must be finite, got inf or NaN")
  found = np.linalg.norm(positions_m, axis=-1)
  if most_m is not None:
    check_positive("most_m", most_m)
    found = found * min(1.0, most_m / max(found.max(), least_m))
  return np.maximum(found, least_m)


def write_positions(
  path: str | os.PathLike[str],
  positions_m: np.ndarray,
  *,
  interval_s: float = 1.0,
) -> None:
  """Writes positions [T, E, 2] as a CSV file with a line of titles."""
  lines = [",".join(_TITLES)]
  for time, nodes in enumerate(positions_m):
    for node, (x, y) in enumerate(nodes):
      lines.append(f"{time * interval_s:.17g},{node},{x:.17g},{y:.17g}")
  atomic.write_text(path, "\n".join(lines) + "\n")


def read_positions(
  path: str | os.PathLike[str], *, times_s: np.ndarray
) -> np.ndarray:
  """Reads a CSV of times and positions, such as a projected GPS trace.

  Columns `time_s, node, x_m, y_m`, metres from the user; a node's lines are in
  the order of time. Between two of them a node walks straight; before the first
  and after the last it stays.

  Args:
    path: of the file.
    times_s: [T] at which positions are wanted.

  Returns:
    [T, E, 2] metres; nodes in the order of their names.

  Raises:
    ValueError: the titles are others, a value is no finite number, or a node's
      times do not ascend; names the line.
  """
  lines = Path(path).read_text("utf-8").splitlines()
  rows = list(csv.reader(lines))
  if not rows or [title.strip() for title in rows[0]] != _TITLES:
    raise ValueError(
      f"{str(path)!r} must begin with {','.join(_TITLES)}, got "
      f"{','.join(rows[0]) if rows else ''!r}"
    )
  nodes: dict[str, list[tuple[float, float, float]]] = {}
  for number, row in enumerate(rows[1:], 2):
    try:
      time, x, y = float(row[0]), float(row[2]), float(row[3])
      if len(row) != len(_TITLES) or not np.isfinite([time, x, y]).all():
        raise ValueError
    except (ValueError, IndexError):
      raise ValueError(
        f"{str(path)!r} line {number} must be four finite values, got {row}"
      ) from None
    track = nodes.setdefault(row[1].strip(), [])
    if track and time <= track[-1][0]:
      raise ValueError(
        f"{str(path)!r} line {number}: times of node {row[1].strip()!r} must "
        f"ascend, got {time} after {track[-1][0]}"
      )
    track.append((time, x, y))
  if not nodes:
    raise ValueError(f"{str(path)!r} must hold positions, got none")
  found = []
  for name in sorted(nodes, key=lambda n: (len(n), n)):
    time, x, y = np.array(nodes[name]).T
    found.append(
      np.stack([np.interp(times_s, time, x), np.interp(times_s, time, y)], -1)
    )
  return np.stack(found, axis=1)
