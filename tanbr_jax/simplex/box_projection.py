"""Euclidean projection on the part of the simplex that lies in a box."""

import jax
import jax.numpy as jnp


def project(
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
