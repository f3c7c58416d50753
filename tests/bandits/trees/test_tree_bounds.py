"""B on a path against the definition, node by node."""

import types

import jax
import jax.numpy as jnp
import numpy as np

from tanbr_jax.bandits.trees import tree_bounds
from tanbr_jax.bandits.trees.tree_statistics import UNBOUNDED


def random_tree(rng, capacity):
  """Children, parents and depths of a tree with free slots at the end."""
  children = np.full((capacity, 2), -1, np.int32)
  parents = np.full(capacity, -1, np.int32)
  depths = np.zeros(capacity, np.int32)
  size = 1
  while size + 2 <= capacity - 3:
    node = rng.choice(np.flatnonzero(children[:size, 0] < 0))
    children[node] = size, size + 1
    parents[size : size + 2] = node
    depths[size : size + 2] = depths[node] + 1
    size += 2
  return children, parents, depths, size


def test_b_on_a_path_is_that_of_the_definition():
  rng = np.random.default_rng(0)
  capacity = 24
  back_up = jax.jit(
    lambda children, *rest: tree_bounds.back_up(
      types.SimpleNamespace(children=children), *rest
    )
  )
  for trial in range(20):
    children, parents, depths, size = random_tree(rng, capacity)
    uppers = rng.normal(size=capacity).astype(np.float32)
    uppers[rng.random(capacity) < 0.2] = UNBOUNDED

    def define(uppers, size=size, children=children):
      bounds = np.full(capacity, 7.0, np.float32)  # free slots stay
      for node in range(size - 1, -1, -1):
        below = bounds[children[node]].max() if children[node, 0] > 0 else 9e9
        bounds[node] = min(uppers[node], below)
      return bounds

    before = define(uppers)
    # Any node may be the last of the path, and all on it have a new U.
    last = int(rng.integers(size)) if trial else 0
    path = [last]
    while parents[path[0]] >= 0:
      path.insert(0, parents[path[0]])
    uppers[path] = rng.normal(size=len(path))
    padded = np.full(capacity, capacity, np.int32)
    padded[: len(path)] = path
    found = back_up(
      jnp.asarray(children),
      jnp.asarray(before),
      jnp.asarray(uppers[np.minimum(padded, capacity - 1)]),
      jnp.asarray(padded),
    )
    np.testing.assert_array_equal(found, define(uppers))


def test_u_and_b_computed_anew_are_those_of_the_definition():
  rng = np.random.default_rng(1)
  capacity, free = 24, 7.0
  children, _, depths, size = random_tree(rng, capacity)
  means = rng.normal(size=capacity).astype(np.float32)
  # Another tree owns the last nodes of the pool.
  owners = np.where(np.arange(capacity) < size, 0, 1)
  uppers = means + 0.5**depths
  bounds = np.full(capacity, free)
  for node in range(size - 1, -1, -1):
    below = bounds[children[node]].max() if children[node, 0] > 0 else 9e9
    bounds[node] = min(uppers[node], below)
  forest = types.SimpleNamespace(
    tree=types.SimpleNamespace(
      children=jnp.asarray(children), depths=jnp.asarray(depths)
    ),
    owners=jnp.asarray(owners),
    means=jnp.asarray(means),
    visits=jnp.ones(capacity),
    max_depth=jnp.max(depths),
  )
  before = jnp.full(capacity, free)

  def rebuild(due):
    return tree_bounds.rebuild(
      forest,
      before,
      before,
      lambda means, visits, depths: means + 0.5 ** depths.astype(jnp.float32),
      forest.owners == 0,
      due,
    )

  found = jax.jit(rebuild)(jnp.asarray(True))
  wanted = np.where(owners == 0, uppers, free), bounds
  for ours, plain in zip(found, wanted, strict=True):
    np.testing.assert_allclose(ours, plain, rtol=1e-6)
  for ours in jax.jit(rebuild)(jnp.asarray(False)):
    np.testing.assert_array_equal(ours, before)
