"""Trees grown at random, for the tests of each partition."""

import jax
import jax.numpy as jnp


def grow(partition, uniforms):
  """Splits a leaf drawn by each uniform; returns the tree and the nodes."""

  def split_one(tree, uniform):
    # A spread of priorities from one number: the nodes that win are as good
    # as random, and the test replays them from the record anyway.
    capacity = tree.is_leaf.shape[0]
    priorities = (uniform * (1 + jnp.arange(capacity, dtype=jnp.float32))) % 1
    node = jnp.argmax(jnp.where(tree.is_leaf, priorities, -1))
    return partition.split(tree, node), node

  return jax.lax.scan(split_one, partition.init(), uniforms)


def uniforms(num, seed=0):
  return jax.random.uniform(jax.random.key(seed), [num]) * 97
