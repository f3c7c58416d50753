"""Euclidean projection on the simplex."""

import jax
import jax.numpy as jnp


def project_on_simplex(point: jax.Array) -> jax.Array:
  """Euclidean projection max(0, z - tau) of z [E] on the simplex, no sort.

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
