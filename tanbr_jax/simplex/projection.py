"""Euclidean projections on the simplex and on the part of it in a box.

Letters: E entries of a point, N points.
"""

import jax
import jax.numpy as jnp


def project(point: jax.Array) -> jax.Array:
  """Projects a point z on the simplex, max(0, z - tau), without a sort.

  For any subset S, tau_S = (sum_S z - 1) / |S| is at most the right tau, with
  equality at the right support, which is {j: z_j >= z_e} for some e: tau is
  the largest of E candidates. E^2 operations, faster than a sort at E = 8.

  Args:
    point: [E]; entries may be -inf.

  Returns:
    [E] on the simplex.
  """
  above = point[None, :] >= point[:, None]
  sums = jnp.sum(jnp.where(above, point[None, :], 0.0), axis=1)
  sizes = jnp.sum(above, axis=1, dtype=jnp.float32)
  tau = jnp.max((sums - 1.0) / sizes)
  return jnp.maximum(point - tau, 0.0)


def project_by_sorting(points: jax.Array) -> jax.Array:
  """Projects points [N, E] on the simplex, in O(E log E) each.

  tau is that of the largest support {the k largest} that keeps its smallest
  entry positive (Held, Wolfe and Crowder, Mathematical Programming 1974). The
  bits are those of optax's `projection_simplex`, which takes 64 under x64.
  """
  sizes = jnp.arange(1, points.shape[-1] + 1, dtype=points.dtype)[None]
  ordered = jnp.sort(points, axis=-1, descending=True)
  sums = jnp.cumsum(ordered, axis=-1)
  is_in = 1 / sizes + (ordered - sums / sizes) > 0
  size = jnp.sum(is_in, axis=-1, keepdims=True, dtype=jnp.int32)
  total = jnp.take_along_axis(sums, size - 1, axis=-1)
  size = size.astype(points.dtype)
  return jnp.maximum(1 / size + (points - total / size), 0)


def project_on_box(
  point: jax.Array, *, lower: jax.Array, upper: jax.Array
) -> jax.Array:
  """Projects a point on {x : lower <= x <= upper, sum x = 1}.

  The projection is x(s) = clip(point - s, lower, upper) for the shift s at
  which its sum is 1 (the KKT conditions). The sum falls with s and is linear
  between the 2 E shifts at which a coordinate meets a bound; all of them are
  evaluated at once, and s is interpolated between the two around 1. There is
  no iteration, hence no tolerance.

  Args:
    point: [E] float32.
    lower: [E] float32.
    upper: [E] float32; sum lower <= 1 <= sum upper, otherwise the result is
      finite but meaningless.

  Returns:
    [E] float32, exact but for rounding.
  """
  shifts = jnp.concatenate([point - upper, point - lower])
  shifted = point[None, :] - shifts[:, None]
  sums = jnp.clip(shifted, lower[None, :], upper[None, :]).sum(axis=1)
  below, above = sums >= 1, sums <= 1
  left = jnp.max(shifts, where=below, initial=shifts.min())
  right = jnp.min(shifts, where=above, initial=shifts.max())
  high = jnp.min(sums, where=below, initial=sums.max())
  low = jnp.max(sums, where=above, initial=sums.min())
  share = (high - 1) / jnp.maximum(high - low, jnp.finfo(jnp.float32).tiny)
  x = jnp.clip(point - (left + share * (right - left)), lower, upper)
  # A rounding error of the shift counts once for each free coordinate: at
  # E = 192 the sum would be off by 6e-6. One Newton step on the shift, taken
  # at x, removes it.
  free = (x > lower) & (x < upper)
  excess = (x.sum() - 1) / jnp.maximum(free.sum(), 1).astype(jnp.float32)
  return jnp.where(free, jnp.clip(x - excess, lower, upper), x)
