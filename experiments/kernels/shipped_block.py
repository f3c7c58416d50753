"""The routed block on the grouped kernel that ships inside JAX, as a peer.

Sorting, gathering and combining are ours, so that the difference is the
matrix products'.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax

from experiments.kernels.shapes import Shape
from tanbr_jax import kernels, moe


class Tile(NamedTuple):
  """Options of `ragged_dot_mgpu.ragged_dot`, in its names."""

  block_m: int
  block_n: int = 128
  block_k: int = 64
  max_concurrent_steps: int = 4


TILES = {"64": Tile(64), "128": Tile(128)}


def block(
  experts: moe.Experts,
  router: jax.Array,
  x: jax.Array,
  *,
  shape: Shape,
  route: Callable[..., moe.Routing],
  tile: Tile,
) -> jax.Array:
  """Routes, sorts, multiplies and combines.

  Raises:
    ImportError: this JAX does not ship the kernel.
  """
  routing = route(router, x, shape=shape)
  order = kernels.sort_by_group(routing.expert_ids, shape.num_experts)
  rows = kernels.dispatch(x, order)
  act = kernels.ACTIVATIONS[shape.activation]
  up = _grouped(rows, experts.w_in, order.group_sizes, tile)
  if experts.w_gate is None:
    hidden = act(up)
  else:
    hidden = act(_grouped(rows, experts.w_gate, order.group_sizes, tile)) * up
  out = _grouped(hidden, experts.w_out, order.group_sizes, tile)
  out = kernels.combine(out, order, routing.gates)
  return out if experts.shared is None else out + moe.apply(experts.shared, x)


def _grouped(
  lhs: jax.Array, rhs: jax.Array, group_sizes: jax.Array, tile: Tile
) -> jax.Array:
  from jax.experimental.pallas.ops.gpu import ragged_dot_mgpu

  columns = rhs.shape[2] // tile.block_n
  grid_block_n = next(n for n in (8, 4, 2, 1) if columns % n == 0)
  return ragged_dot_mgpu.ragged_dot(
    lhs,
    rhs,
    group_sizes=group_sizes,
    grid_block_n=grid_block_n,
    **tile._asdict(),
  )
