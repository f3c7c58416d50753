"""gamma_t by hand."""

import jax.numpy as jnp
import numpy as np

from tanbr_jax.bandits.neural.neural_structure import Theorem
from tanbr_jax.bandits.neural.neural_theorem import confidence_radius


def radius(theorem, *, lam=1 / 64, contraction=0.5):
  theorem = Theorem(*(jnp.float32(value) for value in theorem))
  return confidence_radius(
    theorem,
    num_slots=jnp.float32(64),
    log_det=jnp.float32(2),
    regularisation=jnp.float32(lam),
    contraction=jnp.float32(contraction),
    width=64,
    depth=2,
    num_steps=4,
  )


def test_formula_with_every_term():
  theorem = Theorem(0.5, 3.0, 0.1, c1=2.0, c2=0.25, c3=0.125, c4=1.0)
  # m = 64: m^-1/6 = 1/2 and sqrt(log 64) = 2.039334, together 1.019667.
  # L = 2: L^4 = 16, L^7/2 = 11.313708. t = 64: t^7/6 = 128, t^5/3 = 1024.
  # lambda = 1/64: lambda^-7/6 = 128, lambda^-1/6 = 2, lambda^-5/3 = 1024,
  # sqrt(t / lambda) = 64. (1 - .5)^(4/2) = .25.
  small = 1.019667
  stretch = (1 + 2 * small * 16 * 128 * 128) ** 0.5
  inside = 2 + 0.25 * small * 16 * 1024 * 2 + 2 * 2.302585
  region = 0.5 * inside**0.5 + 3 / 8
  error = 0.25 * 64 + small * 11.313708 * 1024 * 1024 * 65
  wanted = stretch * region + (1 / 64 + 0.125 * 64 * 2) * error
  np.testing.assert_allclose(radius(theorem), wanted, rtol=1e-5)


def test_without_the_open_constants_the_confidence_region_is_left():
  theorem = Theorem(0.5, 3.0, 0.1)
  # .5 sqrt(2 + 4.605170) + 3 sqrt(1/64) = 1.285026 + .375.
  np.testing.assert_allclose(radius(theorem), 1.660026, rtol=1e-5)
