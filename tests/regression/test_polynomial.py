"""Fixed features against NumPy and the kernel that they approximate."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tanbr_jax.regression import polynomial


def test_tangent_basis_is_orthonormal_and_sums_to_zero():
  for size in (2, 5, 192):
    basis = polynomial.tangent_basis(size)
    np.testing.assert_allclose(basis.T @ basis, np.eye(size - 1), atol=1e-12)
    np.testing.assert_allclose(basis.sum(0), 0, atol=1e-12)


def test_polynomial_part_is_constant_linear_and_products():
  features = polynomial.fixed_features(4, scales=(2.0, 3.0, 0.5, 1.0))
  x = np.array([0.4, 0.3, 0.2, 0.1])
  u = x @ polynomial.tangent_basis(4)
  products = [u[i] * u[j] for i in range(3) for j in range(i, 3)]
  wanted = np.concatenate([[2.0], 3 * u, 0.5 * np.array(products)])
  got = polynomial.apply_features(features, jnp.asarray(x, jnp.float32))
  assert polynomial.num_features(features) == wanted.size
  np.testing.assert_allclose(got, wanted, atol=1e-6)


def test_fourier_part_approximates_the_squared_exponential_kernel():
  count, length = 4096, 0.5
  features = polynomial.fixed_features(
    5, quadratic=False, num_fourier=count, length_scale=length
  )
  rng = np.random.default_rng(0)
  xs = rng.dirichlet(np.ones(5), 6)
  phi = np.array(
    [
      polynomial.apply_features(features, jnp.asarray(x, jnp.float32))
      for x in xs
    ],
    np.float64,
  )[:, -count:]
  squares = ((xs[:, None] - xs[None]) ** 2).sum(-1)
  # Standard error of the mean of `count` products of bounded features.
  np.testing.assert_allclose(
    phi @ phi.T, np.exp(-squares / (2 * length**2)), atol=5 / count**0.5
  )


@pytest.mark.parametrize(
  "num_experts, options",
  [
    (2, {"num_fourier": 3}),
    (8, {"num_fourier": 64}),
    (5, {}),
    (40, {"quadratic": False, "radial": True, "num_fourier": 7}),
    (4, {"quadratic": False}),
  ],
)
@pytest.mark.parametrize("backend", ["cpu", "gpu"])
def test_a_linear_function_is_that_of_the_features(
  num_experts, options, backend, monkeypatch
):
  """Values, and slopes along the simplex, of two functions at once.

  What is computed on a GPU, sums in the place of products, runs here too.
  """
  monkeypatch.setattr(jax, "default_backend", lambda: backend)
  features = polynomial.fixed_features(
    num_experts, length_scale=0.6, scales=(2.0, 0.7, 1.3, 0.4), **options
  )
  rng = np.random.default_rng(0)
  coefficients = rng.standard_normal((2, polynomial.num_features(features)))
  coefficients = jnp.asarray(coefficients, jnp.float32)
  function = polynomial.linear_function(features, coefficients)
  basis = polynomial.tangent_basis(num_experts)

  def plain(weights):
    return coefficients @ polynomial.apply_features(features, weights)

  for x in rng.dirichlet(np.ones(num_experts), 3).astype(np.float32):
    x = jnp.asarray(x)
    np.testing.assert_allclose(function(x), plain(x), atol=2e-6)
    found, wanted = (
      np.asarray(jax.jacobian(f)(x), np.float64) @ basis
      for f in (function, plain)
    )
    np.testing.assert_allclose(found, wanted, atol=5e-6)
