"""Rows of the kernel benchmark in JAX: functions, inputs, least work.

Letters: N tokens, E experts, K experts per token, D model width, F hidden
width of an expert, R merges at once.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.kernels import inputs as kernel_inputs
from experiments.kernels import shipped_block
from experiments.kernels.inputs import zipped
from experiments.kernels.shapes import (
  Shape,
  Work,
  merged_work,
  merging_bytes,
  part_work,
  routed_work,
)
from tanbr_jax import kernels, moe

NUM_MERGES = 16
FORCED = ("xla", "mosaic_gpu", "tokamax")


class Row(NamedTuple):
  """One line of the benchmark.

  Attributes:
    function: what is timed.
    inputs: sets of its arguments.
    work: the least that it must do, the mean over the sets.
    all_experts: the same if every expert must be read.
  """

  function: Callable[..., Any]
  inputs: Sequence[tuple[Any, ...]]
  work: Work
  all_experts: Work | None = None


def route(router: jax.Array, x: jax.Array, *, shape: Shape) -> moe.Routing:
  """Logits in float32, softmax, the K largest."""
  logits = jnp.matmul(x, router, preferred_element_type=jnp.float32)
  return moe.top_k(logits, shape.num_selected, renormalise=shape.renormalise)


def routed(
  experts: moe.Experts,
  router: jax.Array,
  x: jax.Array,
  *,
  shape: Shape,
  implementation: str | None = None,
) -> jax.Array:
  """The whole block: what a model calls for every layer."""
  routing = route(router, x, shape=shape)
  return moe.routed(experts, x, routing, implementation=implementation)


def masked(
  experts: moe.Experts,
  router: jax.Array,
  x: jax.Array,
  keep: jax.Array,
  *,
  shape: Shape,
) -> jax.Array:
  """The block without the pairs that `keep` [N, K] leaves out."""
  routing = route(router, x, shape=shape)
  ids = jnp.where(keep, routing.expert_ids, moe.NO_EXPERT)
  return moe.masked(experts, x, routing._replace(expert_ids=ids))


def merging_rows(
  shape: Shape, experts: Sequence[moe.Experts]
) -> dict[str, Row]:
  """Merging one matrix of every expert, beside a copy of all of them."""
  matrices = [tree.w_in for tree in experts]
  count = kernel_inputs.num_sets(matrices[0].nbytes)
  matrices = [matrices[i % len(matrices)] for i in range(count)]
  rng = np.random.default_rng(4)
  points = rng.dirichlet(np.ones(shape.num_experts), (count, NUM_MERGES))
  many = [jnp.asarray(point, jnp.float32) for point in points]
  one = [point[0] for point in many]

  def by_einsum(matrix: jax.Array, weights: jax.Array) -> jax.Array:
    return jnp.einsum("e,eij->ij", weights.astype(matrix.dtype), matrix)

  single = Work(merging_bytes(shape, 1))
  return {
    "copy": Row(copy, zipped(matrices), Work(2 * shape.matrix_bytes)),
    "merge": Row(kernels.weighted_sum, zipped(matrices, one), single),
    "merge_16": Row(
      kernels.weighted_sum,
      zipped(matrices, many),
      Work(merging_bytes(shape, NUM_MERGES)),
    ),
    "merge_einsum": Row(by_einsum, zipped(matrices, one), single),
  }


def copy(x: jax.Array) -> jax.Array:
  """Reads and writes every element once; XLA may not drop it."""
  return -x


class Block:
  """The rows of one shape at one number of tokens."""

  def __init__(
    self,
    shape: Shape,
    num_tokens: int,
    experts: Sequence[moe.Experts],
    merged: Sequence[moe.FeedForward],
  ) -> None:
    """Draws tokens and routes them, to know which experts are active."""
    self.shape, self.num_tokens = shape, num_tokens
    self._experts, self._merged = experts, merged
    self._router = [kernel_inputs.router(shape)]
    self._x = kernel_inputs.token_sets(shape, num_tokens)
    self._keep = kernel_inputs.keep_sets(shape, num_tokens, len(self._x))
    find = jax.jit(functools.partial(route, shape=shape))
    self._routings = [find(self._router[0], x) for x in self._x]

  def work(self, *, is_masked: bool = False) -> Work:
    """The least work of the block, the mean over its inputs."""
    every = np.ones(self._routings[0].expert_ids.shape, bool)
    found = []
    for routing, keep in zip(self._routings, self._keep, strict=True):
      kept = np.asarray(keep) if is_masked else every
      ids = np.asarray(routing.expert_ids)[kept]
      found.append((ids.size, np.unique(ids).size))
    num_pairs, num_active = np.mean(found, axis=0)
    return routed_work(
      self.shape, self.num_tokens, num_pairs=num_pairs, num_active=num_active
    )

  def all_experts(self, work: Work) -> Work:
    """The work if every expert must be read."""
    pairs = self.num_tokens * self.shape.num_selected
    most = routed_work(
      self.shape,
      self.num_tokens,
      num_pairs=pairs,
      num_active=self.shape.num_experts,
    )
    return work._replace(num_bytes=most.num_bytes)

  def rows(self, groups: Sequence[str]) -> dict[str, Row]:
    """Rows of these groups, of `GROUPS`."""
    makers = {
      "routed": self._routed,
      "forced": self._forced,
      "shipped": self._shipped,
      "merged": self._merged_row,
      "masked": self._masked,
      "parts": self._parts,
    }
    found = {}
    for group, make in makers.items():
      if group in groups:
        found |= make()
    return found

  def _routed(self) -> dict[str, Row]:
    return {"routed": self.block_row(routed)}

  def _forced(self) -> dict[str, Row]:
    return {
      f"routed/{name}": self.block_row(
        functools.partial(routed, implementation=name)
      )
      for name in FORCED
    }

  def _shipped(self) -> dict[str, Row]:
    return {
      f"shipped/{name}": self.block_row(
        functools.partial(shipped_block.block, route=route, tile=tile)
      )
      for name, tile in shipped_block.TILES.items()
    }

  def block_row(self, function: Callable[..., Any]) -> Row:
    """The row of a function of experts, router and tokens."""
    work = self.work()
    return Row(
      functools.partial(function, shape=self.shape),
      zipped(self._experts, self._router, self._x),
      work,
      self.all_experts(work),
    )

  def _merged_row(self) -> dict[str, Row]:
    work = merged_work(self.shape, self.num_tokens)
    return {"merged": Row(moe.apply, zipped(self._merged, self._x), work)}

  def _masked(self) -> dict[str, Row]:
    work = self.work(is_masked=True)
    inputs = zipped(self._experts, self._router, self._x, self._keep)
    function = functools.partial(masked, shape=self.shape)
    return {"masked": Row(function, inputs, work, self.all_experts(work))}

  def _parts(self) -> dict[str, Row]:
    shape, routings = self.shape, self._routings
    num_active = np.mean(
      [np.unique(np.asarray(r.expert_ids)).size for r in routings]
    )
    work = part_work(shape, self.num_tokens, num_active=num_active)
    permutations = kernel_inputs.sorted_sets(routings, shape.num_experts)
    size = (self.num_tokens * shape.num_selected, shape.model_dim)
    count = kernel_inputs.num_sets(2 * size[0] * size[1])
    keys = jax.random.split(jax.random.key(5), count)
    rows = [kernel_inputs.normal(key, size=size) for key in keys]
    ids = [routing.expert_ids for routing in routings]
    gates = [routing.gates for routing in routings]
    found = {
      "route": (
        functools.partial(route, shape=shape),
        zipped(self._router, self._x),
      ),
      "sort": (
        functools.partial(kernels.sort_by_group, num_groups=shape.num_experts),
        zipped(ids),
      ),
      "dispatch": (kernels.dispatch, zipped(self._x, permutations)),
      "grouped_ffn": (
        functools.partial(grouped_ffn, activation=shape.activation),
        zipped(rows, self._experts, permutations),
      ),
      "combine": (kernels.combine, zipped(rows, permutations, gates)),
    }
    return {
      f"part/{name}": Row(function, inputs, work[name])
      for name, (function, inputs) in found.items()
    }


def grouped_ffn(
  rows: jax.Array,
  experts: moe.Experts,
  permutation: kernels.Permutation,
  *,
  activation: str,
) -> jax.Array:
  """The experts' products alone, as the routed block calls them."""
  return kernels.grouped_ffn(
    rows,
    experts.w_in,
    experts.w_out,
    permutation.group_sizes,
    w_gate=experts.w_gate,
    activation=activation,
    zero_tail=False,
  )
