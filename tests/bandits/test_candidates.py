"""Candidates: on the simplex, spread as their names say."""

import jax
import jax.numpy as jnp
import numpy as np

from tanbr_jax.bandits import candidates


def test_dirichlet_half_has_that_distributions_moments():
  draws = candidates.dirichlet_half(jax.random.key(0), (20_000, 4))
  np.testing.assert_allclose(jnp.sum(draws, axis=-1), 1, atol=1e-6)
  # Dirichlet(a, ..., a) with E = 4, a = 1/2: mean 1/4 and variance
  # (1/4)(3/4) / (4 a + 1) = 1/16. Standard errors: .25 / sqrt(2e4) = .0018,
  # and about as much for the variance.
  np.testing.assert_allclose(jnp.mean(draws, axis=0), 0.25, atol=8e-3)
  np.testing.assert_allclose(jnp.var(draws, axis=0), 1 / 16, atol=4e-3)


def test_ascent_starts_hold_vertices_centre_and_the_last_weights():
  previous = jnp.asarray([0.2, 0.3, 0.5], jnp.float32)
  starts = candidates.ascent_starts(jax.random.key(1), previous, 5)
  wanted = [*np.eye(3), np.full(3, 1 / 3), [0.2, 0.3, 0.5]]
  np.testing.assert_allclose(starts[:5], np.asarray(wanted, np.float32))
  assert starts.shape == (10, 3)
  np.testing.assert_allclose(jnp.sum(starts, axis=-1), 1, atol=1e-6)
  assert np.all(starts >= 0)
