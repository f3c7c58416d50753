"""Fixed features of merge weights: polynomials and random Fourier features.

On the simplex E weights have E - 1 degrees of freedom, so features are taken
of tangent coordinates u = (x - 1/E) Q, with Q an orthonormal basis of the
directions that keep the sum. Letters: E experts, P features.
"""

import functools
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np

# With more experts there are too many products: a linear model of P features
# keeps P^2 numbers a task, E^4 / 4 with them.
MOST_EXPERTS_OF_PRODUCTS = 16


class FixedFeatures(NamedTuple):
  """A map from merge weights to features, as a pytree of arrays.

  Attributes:
    basis: [E, E - 1] orthonormal tangent basis.
    scales: [4] prior standard deviations of the constant, the linear, the
      quadratic and the Fourier coefficients (0-length groups are dropped by
      shape).
    radii: [0] or [1], whether |u|^2 is a feature.
    rows: [Q] int32, the first tangent coordinate of each product.
    columns: [Q] int32, the second one.
    frequencies: [E - 1, F] of the random Fourier features.
    phases: [F].
  """

  basis: jax.Array
  scales: jax.Array
  radii: jax.Array
  rows: jax.Array
  columns: jax.Array
  frequencies: jax.Array
  phases: jax.Array


def tangent_basis(num_experts: int) -> np.ndarray:
  """Returns [E, E - 1] orthonormal columns, each summing to zero (Helmert)."""
  basis = np.zeros((num_experts, num_experts - 1))
  for j in range(1, num_experts):
    basis[:j, j - 1] = 1
    basis[j, j - 1] = -j
  return basis / np.linalg.norm(basis, axis=0)


def num_features(features: FixedFeatures) -> int:
  """Returns P."""
  return (
    1
    + features.basis.shape[1]
    + features.radii.shape[0]
    + features.rows.shape[0]
    + features.phases.shape[0]
  )


def fixed_features(
  num_experts: int,
  *,
  quadratic: bool = True,
  radial: bool = False,
  num_fourier: int = 0,
  length_scale: float = 0.5,
  scales: tuple[float, float, float, float] = (1.0, 1.0, 1.0, 1.0),
  seed: int = 0,
) -> FixedFeatures:
  """Returns constant, linear, quadratic and random Fourier features.

  A linear model with a unit normal prior over them is a Gaussian process whose
  kernel is the sum of a polynomial one and of an approximated squared
  exponential (Rahimi and Recht 2007; orthogonal directions as in Yu et al.
  2016).

  Args:
    num_experts: E.
    quadratic: whether products of tangent coordinates are taken.
    radial: whether their sum of squares is, the one curvature that can be
      learnt where there are too many products.
    num_fourier: number of random Fourier features.
    length_scale: of the squared-exponential kernel, in units of the weights.
    scales: prior standard deviations of the constant, the linear, the quadratic
      and the Fourier coefficients.
    seed: of the random frequencies.
  """
  dim = num_experts - 1
  rows, columns = np.triu_indices(dim) if quadratic else (np.zeros(0),) * 2
  rng = np.random.default_rng(seed)
  blocks = [np.zeros((dim, 0))]
  for _ in range(-(-num_fourier // dim)):
    directions, _ = np.linalg.qr(rng.standard_normal((dim, dim)))
    blocks.append(directions * np.sqrt(rng.chisquare(dim, dim))[None, :])
  frequencies = np.concatenate(blocks, axis=1)[:, :num_fourier] / length_scale
  phases = rng.uniform(0, 2 * np.pi, num_fourier)
  as_f32 = functools.partial(jnp.asarray, dtype=jnp.float32)
  return FixedFeatures(
    basis=as_f32(tangent_basis(num_experts)),
    scales=as_f32(scales),
    radii=as_f32(np.ones(int(radial))),
    rows=jnp.asarray(rows, jnp.int32),
    columns=jnp.asarray(columns, jnp.int32),
    frequencies=as_f32(frequencies),
    phases=as_f32(phases),
  )


def apply_features(features: FixedFeatures, weights: chex.Array) -> jax.Array:
  """Returns the features [P] of merge weights [E]."""
  coordinates = weights @ features.basis
  parts = [features.scales[:1], features.scales[1] * coordinates]
  # Jax 0.11.2 crashes where an array without elements is multiplied inside of
  # `shard_map`: what is absent is left out.
  if features.radii.shape[0]:
    squares = jnp.sum(coordinates**2)
    parts.append(features.scales[2] * features.radii * squares)
  if features.rows.shape[0]:
    products = coordinates[features.rows] * coordinates[features.columns]
    parts.append(features.scales[2] * products)
  count = features.phases.shape[0]
  if count:
    angles = coordinates @ features.frequencies + features.phases
    amplitude = jnp.float32(np.sqrt(2 / count))
    parts.append(features.scales[3] * amplitude * jnp.cos(angles))
  return jnp.concatenate(parts)
