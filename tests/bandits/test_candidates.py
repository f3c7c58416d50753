"""Candidates: on the simplex, spread as their names say."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tanbr_jax import partition as partitions
from tanbr_jax.bandits import Decision, candidates


def test_ascent_starts_hold_vertices_centre_and_the_last_weights():
  previous = jnp.asarray([0.2, 0.3, 0.5], jnp.float32)
  make = jax.jit(candidates.ascent_starts, static_argnums=2)
  starts = make(jax.random.key(1), previous, 5)
  wanted = [*np.eye(3), np.full(3, 1 / 3), [0.2, 0.3, 0.5]]
  np.testing.assert_allclose(starts[:5], np.asarray(wanted, np.float32))
  assert starts.shape == (10, 3)
  np.testing.assert_allclose(jnp.sum(starts, axis=-1), 1, atol=1e-6)
  assert np.all(starts >= 0)


def test_dirichlet_draws_are_uniform_on_the_simplex():
  source = compiled(candidates.make_source("dirichlet", 60, 6000))
  points, active = source.propose(jax.random.key(0), source.init())
  assert np.all(active)
  np.testing.assert_allclose(points.sum(axis=1), 1, atol=1e-5)
  # Dirichlet(1) has the mean 1/60 and the variance (1/60)(59/60) / 61.
  np.testing.assert_allclose(points.mean(axis=0), 1 / 60, rtol=0.05)
  variance = (1 / 60) * (59 / 60) / 61
  np.testing.assert_allclose(points.var(axis=0), variance, rtol=0.2)


def decide(weights, leaf=0):
  return Decision(weights, {"leaf": jnp.int32(leaf)})


def compiled(source):
  """The same source, each of whose functions is one program."""
  return source._replace(
    propose=jax.jit(source.propose),
    update=jax.jit(source.update),
    describe=jax.jit(source.describe),
  )


def make_leaves(**options):
  partition = partitions.simplex(num_experts=3, capacity=5)
  return compiled(candidates.leaves(partition, num_experts=3, **options))


def test_a_leaf_splits_that_was_played_often_enough():
  source = make_leaves(rho=0.5, split_scale=2.0)
  state = source.init()
  seen, not_seen = jnp.asarray(True), jnp.asarray(False)
  x = jnp.full(3, 1 / 3, jnp.float32)

  def leaves(state):
    return np.flatnonzero(source.propose(jax.random.key(0), state)[1]).tolist()

  state = source.update(state, decide(x), not_seen)
  state = source.update(state, decide(x), seen)
  assert leaves(state) == [0]
  state = source.update(state, decide(x), seen)
  assert leaves(state) == [1, 2]
  # 2 / .25 = 8 visits split a leaf of depth 1; then no room is left.
  for visits in range(8):
    assert leaves(state) == [1, 2], visits
    state = source.update(state, decide(x, leaf=2), seen)
  assert leaves(state) == [1, 3, 4]
  points, _ = source.propose(jax.random.key(0), state)
  np.testing.assert_allclose(points.sum(axis=1), 1, atol=1e-6)
  aux = source.describe(state, jnp.int32(1), points[1])
  found = {name: int(value) for name, value in aux.items()}
  assert found == {
    "leaf": 1,
    "depth": 1,
    "max_depth": 2,
    "num_leaves": 3,
    "tree_full": 0,
  }


def test_weights_that_no_leaf_offers_are_their_cells():
  source = make_leaves(rho=0.5)
  centre = jnp.full(3, 1 / 3, jnp.float32)
  state = source.update(source.init(), decide(centre), jnp.asarray(True))
  points, _ = source.propose(jax.random.key(0), state)
  for child in (1, 2):
    near = points[child] + jnp.asarray([1e-3, -1e-3, 0.0])
    # Also where the candidate was a fresh draw, from beyond the tree's nodes.
    for candidate in (child, 3 - child, 7):
      aux = source.describe(state, jnp.int32(candidate), near)
      assert aux["leaf"] == child


def test_fresh_draws_join_the_leaves_with_every_split():
  source = make_leaves(num_fresh=4)
  state, seen = source.init(), jnp.asarray(True)
  for num_splits, leaf in ((0, 0), (1, 1), (2, 1)):
    points, active = source.propose(jax.random.key(0), state)
    assert points.shape == (5 + 4, 3)
    assert active[5:].tolist() == [i < num_splits for i in range(4)]
    for _ in range(2):
      state = source.update(state, decide(points[0], leaf), seen)


def test_ascent_remembers_what_was_played_in_a_slot_that_showed_something():
  source = compiled(candidates.make_source("ascent", 3, 2))
  x = jnp.asarray([0.7, 0.2, 0.1], jnp.float32)
  state = source.update(source.init(), decide(x), jnp.asarray(False))
  np.testing.assert_allclose(state, 1 / 3)
  state = source.update(state, decide(x), jnp.asarray(True))
  points, active = source.propose(jax.random.key(0), state)
  np.testing.assert_allclose(points[4], x)
  assert points.shape == (3 + 2 + 2, 3) and np.all(active)


@pytest.mark.parametrize(
  "name, sizes, words",
  [
    ("cube", (3, 4), "candidates='cube'"),
    ("tree", (3, 0), "num_candidates=0"),
    ("dirichlet", (1, 4), "num_experts=1"),
  ],
)
def test_bad_names_and_sizes(name, sizes, words):
  with pytest.raises(ValueError, match=words):
    candidates.make_source(name, *sizes)


@pytest.mark.parametrize(
  "options, words",
  [
    ({"rho": 0.0}, "rho=0.0"),
    ({"split_scale": float("inf")}, "split_scale=inf"),
    ({"num_fresh": -1}, "num_fresh=-1"),
  ],
)
def test_bad_numbers_of_leaves(options, words):
  with pytest.raises(ValueError, match=words):
    make_leaves(**options)
