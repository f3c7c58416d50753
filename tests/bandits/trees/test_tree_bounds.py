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
