"""Candidates: on the simplex, spread as their names say."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

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


def test_lattice_holds_all_multiples():
  points = candidates.lattice(2, 3)
  wanted = {(2, 0, 0), (0, 2, 0), (0, 0, 2), (1, 1, 0), (1, 0, 1), (0, 1, 1)}
  assert {tuple(p) for p in (2 * points).astype(int).tolist()} == wanted
  assert len(points) == 6


@pytest.mark.parametrize(
  "size, num_experts, num_lattice", [(20, 3, 15), (20, 8, 8), (20, 192, 0)]
)
def test_grid_is_the_finest_lattice_and_spread_points(
  size, num_experts, num_lattice
):
  points = candidates.grid(size, num_experts)
  assert points.shape == (size, num_experts) and points.dtype == np.float32
  np.testing.assert_allclose(points.sum(axis=1), 1, atol=1e-5)
  assert np.all(points >= 0) and np.all(np.isfinite(points))
  assert len(np.unique(points, axis=0)) == size
  # 20 points hold the 15 = C(4 + 2, 2) multiples of 1/4 of three weights, of
  # eight weights the 8 vertices, of 192 none. Sobol points lie inside.
  steps = {15: 4, 8: 1, 0: 1}[num_lattice] * points[:num_lattice]
  np.testing.assert_array_equal(steps, np.round(steps))
  assert np.all(points[num_lattice:] > 0)


def test_many_spread_points_are_uniform_on_the_simplex():
  # H = 2 has 60 * 61 / 2 points of 60 weights. Of the rest the mean weight is
  # 1/60 and the variance (1/60)(59/60) / 61, as of Dirichlet(1).
  points = candidates.grid(6000, 60)[60 * 61 // 2 :]
  np.testing.assert_allclose(points.mean(axis=0), 1 / 60, rtol=0.05)
  variance = (1 / 60) * (59 / 60) / 61
  np.testing.assert_allclose(points.var(axis=0), variance, rtol=0.1)


def test_tree_splits_a_leaf_that_was_played_often_enough():
  source = candidates.make_source(
    "tree", num_experts=3, num_candidates=3, rho=0.5, split_scale=2.0
  )
  state = source.init()
  seen, not_seen = jnp.asarray(True), jnp.asarray(False)
  x = jnp.full(3, 1 / 3, jnp.float32)

  def leaves(state):
    return np.flatnonzero(source.propose(jax.random.key(0), state)[1]).tolist()

  state = source.update(state, jnp.int32(0), x, not_seen)
  state = source.update(state, jnp.int32(0), x, seen)
  assert leaves(state) == [0]
  state = source.update(state, jnp.int32(0), x, seen)
  assert leaves(state) == [1, 2]
  # 2 / .25 = 8 visits split a leaf of depth 1; then no room is left.
  for visits in range(8):
    assert leaves(state) == [1, 2], visits
    state = source.update(state, jnp.int32(2), x, seen)
  assert leaves(state) == [1, 3, 4]
  points, _ = source.propose(jax.random.key(0), state)
  np.testing.assert_allclose(points.sum(axis=1), 1, atol=1e-6)


def test_ascent_remembers_what_was_played_in_a_slot_that_showed_something():
  source = candidates.make_source("ascent", num_experts=3, num_candidates=2)
  x = jnp.asarray([0.7, 0.2, 0.1], jnp.float32)
  state = source.update(source.init(), jnp.int32(0), x, jnp.asarray(False))
  np.testing.assert_allclose(state, 1 / 3)
  state = source.update(state, jnp.int32(0), x, jnp.asarray(True))
  points, active = source.propose(jax.random.key(0), state)
  np.testing.assert_allclose(points[4], x)
  assert points.shape == (3 + 2 + 2, 3) and np.all(active)


@pytest.mark.parametrize(
  "name, options, words",
  [
    ("cube", {}, "candidates='cube'"),
    ("grid", {"num_candidates": 0}, "num_candidates=0"),
    ("tree", {"rho": 0.0}, "rho=0.0"),
    ("tree", {"split_scale": float("inf")}, "split_scale=inf"),
    ("grid", {"num_experts": 1}, "num_experts=1"),
  ],
)
def test_bad_input(name, options, words):
  with pytest.raises(ValueError, match=words):
    candidates.make_source(name, **{"num_experts": 3, **options})
