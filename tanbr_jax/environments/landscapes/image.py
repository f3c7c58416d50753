"""The simplex seen in one or two dimensions.

A classic objective has one or two variables y. The image of weights x is
y = x P, where P [E, D] holds the experts' places: on a line (D = 1) they are
spread evenly over [0, 1], in a plane (D = 2) they are the corners of a regular
polygon in the unit circle; which expert has which place is drawn. The map is a
[R] choice, all tasks share it, and E - 1 - D directions of x do not matter.
Hence the best weights can be found in the image. Letters: E experts, D
dimensions of the image.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp


class Image(NamedTuple):
  """The experts' places.

  Attributes:
    places: [E, D] float32, P.
    order: [E] int32, the experts in the order of their places.
  """

  places: jax.Array
  order: jax.Array


def draw_image(key: jax.Array, *, num_experts: int, dims: int) -> Image:
  """Deals E places in a line (dims = 1) or on a circle (dims = 2)."""
  experts = jnp.arange(num_experts, dtype=jnp.int32)
  order = jax.random.permutation(key, experts)
  steps = jnp.arange(num_experts, dtype=jnp.float32)
  if dims == 1:
    sites = (steps / (num_experts - 1))[:, None]
  else:
    angles = steps * _sector(num_experts)
    sites = jnp.stack([jnp.cos(angles), jnp.sin(angles)], axis=1)
  return Image(jnp.zeros_like(sites).at[order].set(sites), order)


def clip(image: Image, y: jax.Array) -> jax.Array:
  """The point y [D]; one outside of the image moves to its rim.

  In a plane it moves towards the centre.
  """
  num_experts, dims = image.places.shape
  if dims == 1:
    return jnp.clip(y, 0.0, 1.0)
  _, near, far = _in_sector(y, num_experts)
  return y / jnp.maximum(1.0, near + far)


def lift(image: Image, y: jax.Array) -> jax.Array:
  """Weights [E] whose image is y [D], a point of the image."""
  num_experts, dims = image.places.shape
  experts = jnp.arange(num_experts, dtype=jnp.int32)
  if dims == 1:
    first, last = image.order[0], image.order[-1]
    weights = jnp.where(experts == last, y[0], 0.0)
    return weights + jnp.where(experts == first, 1.0 - y[0], 0.0)
  sector, near, far = _in_sector(y, num_experts)
  rest = jnp.maximum(0.0, 1.0 - near - far) / num_experts
  first = image.order[sector]
  second = image.order[(sector + 1) % num_experts]
  weights = rest + jnp.where(experts == first, near, 0.0)
  weights = weights + jnp.where(experts == second, far, 0.0)
  return weights / jnp.sum(weights)


def _sector(num_experts: int) -> float:
  return 2.0 * jnp.pi / num_experts


def _in_sector(
  y: jax.Array, num_experts: int
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Splits y [2] = near p_j + far p_(j+1) between two corners: j, near, far."""
  angle = jnp.arctan2(y[1], y[0]) / _sector(num_experts)
  angle = jnp.where(angle < 0.0, angle + num_experts, angle)
  sector = jnp.minimum(angle.astype(jnp.int32), num_experts - 1)
  part = (angle - sector.astype(jnp.float32)) * _sector(num_experts)
  radius = jnp.sqrt(jnp.sum(y**2)) / jnp.sin(_sector(num_experts))
  near = radius * jnp.sin(jnp.maximum(0.0, _sector(num_experts) - part))
  return sector, near, radius * jnp.sin(jnp.maximum(0.0, part))
