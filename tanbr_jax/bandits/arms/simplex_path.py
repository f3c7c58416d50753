"""A path through the simplex: one number in [0, 1] becomes merge weights.

Letters: E experts, P way points.
"""

from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np

from tanbr_jax.bandits.base import check_at_least
from tanbr_jax.simplex.points import check_simplex


class SimplexPath(NamedTuple):
  """Straight lines between way points, at constant speed.

  Attributes:
    points: [P, E] way points on the simplex.
    places: [P] float32 from 0 to 1, where on the path each lies.
  """

  points: jax.Array
  places: jax.Array


def default_points(num_experts: int) -> np.ndarray:
  """Returns [2 E - 1, E]: e_1, centre, e_2, centre, ..., e_E [R].

  It meets every expert alone, the plain average, and the mergers of one expert
  with the average; other merges of two or more experts are not on it.
  """
  points = np.full((2 * num_experts - 1, num_experts), 1 / num_experts)
  points[::2] = np.eye(num_experts)
  return points


def simplex_path(
  num_experts: int, points: chex.Array | None = None
) -> SimplexPath:
  """Returns the path through the points, or through `default_points`.

  Args:
    num_experts: E.
    points: [P, E] on the simplex, P >= 2, no two in a row the same.

  Raises:
    ValueError: if the points are off the simplex or do not make a path.
  """
  check_at_least("num_experts", num_experts, 2)
  if points is None:
    points = default_points(num_experts)
  shape = np.shape(points)
  if len(shape) != 2 or shape[0] < 2 or shape[1] != num_experts:
    raise ValueError(
      "path must be [P, num_experts] with P >= 2, got "
      f"path.shape={shape}, num_experts={num_experts}"
    )
  checked = check_simplex("path", points)
  lengths = np.linalg.norm(np.diff(np.asarray(points, float), axis=0), axis=1)
  if not np.all(lengths > 1e-6):
    raise ValueError(
      "path must move at every step, got equal points "
      f"{int(np.argmin(lengths))} and {int(np.argmin(lengths)) + 1}"
    )
  places = np.concatenate([[0], np.cumsum(lengths)]) / lengths.sum()
  return SimplexPath(checked, jnp.asarray(places, jnp.float32))


def walk(path: SimplexPath, place: chex.Array) -> jax.Array:
  """Returns the weights [E] at `place` [] in [0, 1] of the path."""
  last = path.places.shape[0] - 2
  passed = jnp.sum((path.places <= place).astype(jnp.int32)) - 1
  segment = jnp.clip(passed, 0, last)
  start, end = path.places[segment], path.places[segment + 1]
  share = jnp.clip((place - start) / (end - start), 0.0, 1.0)
  return (1 - share) * path.points[segment] + share * path.points[segment + 1]
