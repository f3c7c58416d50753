"""Random inputs of the kernel benchmark, enough sets of them to miss the cache.

Letters: N tokens, E experts, K experts per token, D model width, F hidden
width of an expert.
"""

import functools
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.kernels.shapes import ITEM, Shape
from tanbr_jax import kernels, moe

# Several times the L2 cache of today's GPUs (50 MB on an H100).
ROTATED_BYTES = 256e6
DTYPE = jnp.bfloat16
KEPT_SHARE = 0.15  # Of the pairs that a mask leaves.


def num_sets(num_bytes: float, *, least: int = 2, most: int = 32) -> int:
  """The number of sets of inputs, of so many bytes, to rotate over."""
  return int(np.clip(math.ceil(ROTATED_BYTES / num_bytes), least, most))


def expert_sets(shape: Shape) -> list[moe.Experts]:
  """Random experts; two sets of them, or more if they are small."""
  num_bytes = ITEM * shape.num_experts * shape.expert_parameters
  keys = jax.random.split(jax.random.key(0), num_sets(num_bytes))
  return [_experts(key, shape=shape) for key in keys]


def merged_sets(experts: Sequence[moe.Experts]) -> list[moe.FeedForward]:
  """Merged experts, as many of them as miss the cache."""
  rng = np.random.default_rng(0)
  merge = jax.jit(moe.merge)
  num_bytes = sum(a.nbytes for a in jax.tree.leaves(experts[0]))
  count = num_sets(num_bytes / experts[0].num_experts)
  weights = rng.dirichlet(np.ones(experts[0].num_experts), count)
  return [
    merge(experts[i % len(experts)], jnp.asarray(weights[i], jnp.float32))
    for i in range(count)
  ]


def token_sets(shape: Shape, num_tokens: int) -> list[jax.Array]:
  """Tokens [N, D] of unit variance; at least four sets of them."""
  count = num_sets(ITEM * num_tokens * shape.model_dim, least=4)
  keys = jax.random.split(jax.random.key(1), count)
  size = (num_tokens, shape.model_dim)
  return [normal(key, size=size) for key in keys]


def router(shape: Shape) -> jax.Array:
  """A router [D, E] whose logits have unit variance: a nearly even load."""
  size = (shape.model_dim, shape.num_experts)
  return normal(jax.random.key(2), size=size, scale=shape.model_dim**-0.5)


def keep_sets(shape: Shape, num_tokens: int, count: int) -> list[jax.Array]:
  """[N, K] bool: the pairs that a mask leaves, chosen at random."""
  rng = np.random.default_rng(3)
  size = (count, num_tokens, shape.num_selected)
  return [jnp.asarray(keep) for keep in rng.random(size) < KEPT_SHARE]


def zipped(*columns: Sequence[Any]) -> list[tuple[Any, ...]]:
  """Sets of arguments; shorter columns begin anew."""
  longest = max(len(column) for column in columns)
  return [tuple(c[i % len(c)] for c in columns) for i in range(longest)]


@functools.partial(jax.jit, static_argnames=("size", "scale"))
def normal(
  key: jax.Array, *, size: tuple[int, ...], scale: float = 1.0
) -> jax.Array:
  """Normal numbers of `DTYPE`."""
  return jax.random.normal(key, size, DTYPE) * jnp.asarray(scale, DTYPE)


def _experts(key: jax.Array, *, shape: Shape) -> moe.Experts:
  own_key, shared_key = jax.random.split(key)
  matrices = _matrices(own_key, shape, (shape.num_experts,), shape.expert_dim)
  shared = None
  if shape.shared_dim:
    shared = moe.FeedForward(
      **_matrices(shared_key, shape, (), shape.shared_dim),
      activation=shape.activation,
    )
  return moe.Experts(**matrices, shared=shared, activation=shape.activation)


def _matrices(
  key: jax.Array, shape: Shape, lead: tuple[int, ...], hidden: int
) -> dict[str, jax.Array]:
  keys, dim = jax.random.split(key, 3), shape.model_dim
  wide = {"size": (*lead, dim, hidden), "scale": dim**-0.5}
  found = {
    "w_in": normal(keys[0], **wide),
    "w_out": normal(keys[1], size=(*lead, hidden, dim), scale=hidden**-0.5),
  }
  if shape.is_gated:
    found["w_gate"] = normal(keys[2], **wide)
  return found


def sorted_sets(
  routings: Sequence[moe.Routing], num_experts: int
) -> list[kernels.Permutation]:
  """The permutation of each routing."""
  sort = jax.jit(kernels.sort_by_group, static_argnums=1)
  return [sort(routing.expert_ids, num_experts) for routing in routings]
