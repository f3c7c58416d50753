"""Fixed features of merge weights: polynomials and random Fourier features.

On the simplex E weights have E - 1 degrees of freedom, so features are taken
of tangent coordinates u = (x - 1/E) Q, with Q an orthonormal basis of the
directions that keep the sum. Letters: E experts, P features.
"""

import functools
from collections.abc import Callable
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
    radii: [0] or [1], factor of |u|^2 if that is a feature.
    rows: [Q] int32, the first tangent coordinate of each product.
    columns: [Q] int32, the second one.
    projections: [E, F] of the weights to the random Fourier features' angles,
      the tangent basis times the frequencies.
    phases: [F].
  """

  basis: jax.Array
  scales: jax.Array
  radii: jax.Array
  rows: jax.Array
  columns: jax.Array
  projections: jax.Array
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
  radial: float | None = None,
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
    radial: prior standard deviation of the coefficient of their sum of squares,
      the one curvature that can be learnt where there are too many products,
      in units of that of the quadratic coefficients; None for no such feature.
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
  basis = tangent_basis(num_experts)
  as_f32 = functools.partial(jnp.asarray, dtype=jnp.float32)
  return FixedFeatures(
    basis=as_f32(basis),
    scales=as_f32(scales),
    radii=as_f32([] if radial is None else [radial]),
    rows=jnp.asarray(rows, jnp.int32),
    columns=jnp.asarray(columns, jnp.int32),
    projections=as_f32(basis @ frequencies),
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
    angles = weights @ features.projections + features.phases
    amplitude = jnp.float32(np.sqrt(2 / count))
    parts.append(features.scales[3] * amplitude * jnp.cos(angles))
  return jnp.concatenate(parts)


def linear_function(
  features: FixedFeatures, coefficients: chex.Array
) -> Callable[[jax.Array], jax.Array]:
  """Returns x [E] -> c . phi(x) [...] for coefficients c [..., P].

  Equal to `coefficients @ apply_features(features, x)` on the simplex, but for
  rounding. What does not depend on x is computed once, so that many points, or
  many steps of an ascent, cost E (F + 1) each, and E^2 more with products only.
  """
  basis, scales = features.basis, features.scales
  num_experts, num_radii = basis.shape[0], features.radii.shape[0]
  num_products, num_fourier = features.rows.shape[0], features.phases.shape[0]
  ends = np.cumsum((1, num_experts - 1, num_radii, num_products))
  constant, linear, radial, products, waves = jnp.split(
    coefficients, ends, axis=-1
  )
  # Each part in terms of y = x - 1/E, whose tangent coordinates are y Q.
  constant = scales[0] * constant[..., 0]
  slope = scales[1] * _dot(linear, basis.T)
  radial = scales[2] * _dot(radial, features.radii)
  sides = basis[:, features.rows], basis[:, features.columns]
  pairs = sides[0][:, None] * sides[1][None]
  pairs = pairs.reshape(num_experts**2, num_products)
  curvature = scales[2] * _dot(products, pairs.T)
  curvature = curvature.reshape(*products.shape[:-1], *(num_experts,) * 2)
  waves = scales[3] * jnp.float32(np.sqrt(2 / max(num_fourier, 1))) * waves

  def value(weights: jax.Array) -> jax.Array:
    y = weights - 1 / num_experts
    total = constant + _tiny_product(slope, y)
    if num_radii:
      total += radial * jnp.sum(y**2)
    if num_products:
      total += _tiny_product(_tiny_product(curvature, y), y)
    if num_fourier:
      angles = _tiny_product(features.projections.T, y) + features.phases
      total += _tiny_product(waves, jnp.cos(angles))
    return total

  return value


def _tiny_product(a: jax.Array, b: jax.Array) -> jax.Array:
  """Returns a @ b for [..., P] and [P].

  A GPU's kernel for a product takes four times as long as one for a sum where
  there is this little to multiply.
  """
  if jax.default_backend() == "gpu":
    return jnp.sum(a * b.reshape((1,) * (a.ndim - 1) + b.shape), axis=-1)
  return a @ b


def _dot(a: jax.Array, b: jax.Array) -> jax.Array:
  return jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)
