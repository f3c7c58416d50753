"""The inverse Cholesky factor of a covariance matrix over a sliding window.

For M observations with covariance K = L L' this keeps R = L^-1, oldest first,
so that k'K^-1 k = |R k|^2 costs a product with no solve. Each round the oldest
observation leaves and a new one enters, in O(M^2) and without a branch.

Leaving: split off the first row and column. The rest of K is L_2 L_2' + v v',
v the first column of L below the diagonal, hence its factor is L_2 C with
C C' = I + w w', w = R_2 v = -R_21 / R_11, and its inverse is C^-1 R_2. Now
C^-1 b is what a recursive regression of b on w leaves over: with t_i = 1 +
sum_{j<=i} w_j^2,

  (C^-1 b)_i = sqrt(t_{i-1} / t_i) (b_i - w_i sum_{j<i} w_j b_j / t_{i-1}).

|C^-1| <= 1: rounding errors do not grow, and every row is gone after M rounds.
Entering is the usual bordering of a factor. (Rank-one changes of a Cholesky
factor: Gill, Golub, Murray and Saunders, Mathematics of Computation 1974.)

A window that is not full yet holds observations of unit variance which are
independent of everything. Letters: M observations.
"""

import chex
import jax
import jax.numpy as jnp


def init(capacity: int) -> jax.Array:
  """Returns R [M, M] of an empty window, the identity."""
  return jnp.eye(capacity, dtype=jnp.float32)


def _drop_oldest(factor: jax.Array) -> jax.Array:
  """Returns C^-1 R_2, [M - 1, M - 1]."""
  rest = factor[1:, 1:]
  coupling = -factor[1:, 0] / factor[0, 0]
  totals = 1 + jnp.cumsum(coupling**2)
  before = jnp.concatenate([jnp.ones(1, totals.dtype), totals[:-1]])
  known = jnp.cumsum(coupling[:, None] * rest, axis=0)
  known = jnp.concatenate([jnp.zeros_like(known[:1]), known[:-1]])
  left = rest - (coupling / before)[:, None] * known
  return jnp.sqrt(before / totals)[:, None] * left


def slide(
  factor: chex.Array,
  covariance: chex.Array,
  variance: chex.Numeric,
  least: chex.Numeric,
) -> jax.Array:
  """Returns R after the oldest observation left and a new one entered.

  Args:
    factor: [M, M], R.
    covariance: [M] of the new observation with those that stay, oldest first,
      and anything in the last place; 0 for empty places.
    variance: [] of the new observation, noise included.
    least: [] the noise, below which what the others leave of the variance
      cannot fall but by rounding.
  """
  capacity = factor.shape[0]
  rest = _drop_oldest(factor)
  explained = rest @ covariance[:-1]
  remaining = jnp.maximum(variance - jnp.dot(explained, explained), least)
  scale = jax.lax.rsqrt(remaining)
  row = jnp.concatenate([-scale * (explained @ rest), scale[None]])
  new = jnp.zeros((capacity, capacity), factor.dtype)
  return new.at[:-1, :-1].set(rest).at[-1].set(row)
