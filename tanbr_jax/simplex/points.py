"""Points of the simplex: how they are drawn, and how they are checked.

`jax.random.dirichlet` draws gamma variables by rejection, which takes seconds
to compile and is slow inside a scan. Two concentrations need no gammas.
Letters: E entries of a point.
"""

import chex
import jax
import jax.numpy as jnp
import numpy as np

# A float32 sum of a thousand rounded entries is right to this.
_TOLERANCE = 1e-4


def dirichlet_one(key: chex.PRNGKey, shape: tuple[int, ...]) -> jax.Array:
  """Draws points [..., E] of Dirichlet(1), uniform on the simplex.

  They are exponentials, normalised.

  Args:
    key: random key, consumed.
    shape: (..., E).
  """
  return _normalise(jax.random.exponential(key, shape, jnp.float32))


def dirichlet_half(key: chex.PRNGKey, shape: tuple[int, ...]) -> jax.Array:
  """Draws points [..., E] of Dirichlet(1/2), which favours few entries.

  They are squares of normals, normalised.

  Args:
    key: random key, consumed.
    shape: (..., E).
  """
  return _normalise(jax.random.normal(key, shape, jnp.float32) ** 2)


def dirichlet(
  key: chex.PRNGKey, concentration: jax.Array, shape: tuple[int, ...]
) -> jax.Array:
  """Draws points [..., E] of a Dirichlet, slowly: not for inside of a scan.

  Args:
    key: random key, consumed.
    concentration: positive, broadcastable to `shape`.
    shape: (..., E).
  """
  # In logarithms, because Gamma(0.05) often underflows float32.
  return jax.nn.softmax(
    jax.random.loggamma(key, concentration, shape, jnp.float32), -1
  )


def is_on_simplex(points: chex.ArrayNumpy | chex.Array) -> np.ndarray:
  """Tells [...] whether points [..., E] are on the simplex.

  No entry may be below 0, and no sum away from 1, by more than 1e-4, or by
  more than a type coarser than that rounds 1 (2^-8 in bfloat16). What is not
  finite is off.
  """
  points = np.asarray(points)
  is_float = jnp.issubdtype(points.dtype, jnp.floating)
  rounding = float(jnp.finfo(points.dtype).eps) / 2 if is_float else 0.0
  tolerance = max(_TOLERANCE, rounding)
  points = points.astype(np.float64)
  # Written so that a NaN fails both.
  is_positive = points.min(-1) >= -tolerance
  return is_positive & (np.abs(points.sum(-1) - 1) <= tolerance)


def check_simplex(name: str, points: chex.ArrayNumpy | chex.Array) -> jax.Array:
  """Returns points as float32 after checking that they are on the simplex.

  Values are read, so this is for the outside of `jax.jit`.

  Args:
    name: what to call the points in an error.
    points: [..., E], see `is_on_simplex`; they are never rescaled.

  Raises:
    ValueError: with the first point that is off the simplex; or if the points
      are traced and have no values, or have no entries.
  """
  if isinstance(points, jax.core.Tracer):
    raise ValueError(
      f"{name} must have values to be checked against the simplex, got a "
      f"traced {points.dtype}{points.shape}; check them outside of jax.jit"
    )
  points = np.atleast_1d(points)
  if points.shape[-1] < 1:
    raise ValueError(f"{name} must be [..., E], got an array {points.shape}")
  rows = points.reshape(-1, points.shape[-1])
  off = np.flatnonzero(~is_on_simplex(rows))
  if off.size:
    row = rows[off[0]].astype(np.float64)
    raise ValueError(
      f"{name} must lie on the simplex (be non-negative and sum to 1), got "
      f"{np.round(row, 6).tolist()} with sum {row.sum():.6g} at row {off[0]}"
    )
  return jnp.asarray(points, jnp.float32)


def _normalise(draws: jax.Array) -> jax.Array:
  return draws / jnp.sum(draws, axis=-1, keepdims=True)
