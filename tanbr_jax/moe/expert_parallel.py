"""The routed forward, and merging, with experts that are spread over devices.

Each device runs or merges its own experts, and the results are added.
Letters: E experts, N tokens, K experts per token, D model width.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import NamedSharding, PartitionSpec

from tanbr_jax.moe import expert_merging, feed_forward
from tanbr_jax.moe.experts import Experts
from tanbr_jax.moe.routing import NO_EXPERT, Routing


def spread(
  forward: Callable[[Experts, jax.Array, Routing], tuple[jax.Array, ...]],
  experts: Experts,
  x: jax.Array,
  routing: Routing,
  sharding: NamedSharding,
) -> tuple[jax.Array, ...]:
  """Runs a forward on every device's own experts and adds the outputs.

  Args:
    forward: from experts, tokens and their routing to arrays that are sums
      over experts, as `routed` and `routed_pairs` give.
    experts: E stacked experts, whose first axis is spread by the sharding; a
      shared block is on all devices.
    x: [N, D] of the experts' type, on all devices.
    routing: of these tokens, on all devices.
    sharding: of the first axis, by one axis of its mesh.

  Returns:
    What `forward` returns, on all devices; a shared block's output is added to
    the first of them.
  """
  (axis,) = sharding.spec

  def one_device(
    own: Experts, x: jax.Array, routing: Routing
  ) -> tuple[jax.Array, ...]:
    # The experts of other devices are none here, and cost nothing.
    count = own.num_experts
    first = lax.axis_index(axis).astype(jnp.int32) * count
    ids = routing.expert_ids - first
    is_own = (ids >= 0) & (ids < count)
    here = Routing(
      jnp.where(is_own, ids, NO_EXPERT),
      jnp.where(is_own, routing.gates, jnp.zeros_like(routing.gates)),
      lax.dynamic_slice_in_dim(routing.probabilities, first, count, axis=1),
    )
    return lax.psum(forward(own, x, here), axis)

  run = _on_all(one_device, sharding, PartitionSpec(), PartitionSpec())
  out, *rest = run(feed_forward.without_shared(experts), x, routing)
  return feed_forward.add_shared(out, experts, x), *rest


def merge(
  experts: Experts, merge_weights: jax.Array, sharding: NamedSharding
) -> feed_forward.FeedForward:
  """`moe.merge` of experts that are spread over devices.

  Args:
    experts: E stacked experts without a shared block, spread by the sharding.
    merge_weights: [E].
    sharding: as for `spread`.

  Returns:
    The block, on all devices.
  """
  (axis,) = sharding.spec

  def one_device(own: Experts, weights: jax.Array) -> feed_forward.FeedForward:
    return lax.psum(expert_merging.merge(own, weights), axis)

  run = _on_all(one_device, sharding, PartitionSpec(axis))
  return run(experts, merge_weights)


def _on_all(
  one_device: Callable[..., Any], sharding: NamedSharding, *specs: PartitionSpec
) -> Callable[..., Any]:
  """A function of spread experts and of what `specs` say of the rest."""
  return jax.shard_map(
    one_device,
    mesh=sharding.mesh,
    in_specs=(PartitionSpec(*sharding.spec), *specs),
    out_specs=PartitionSpec(),
  )
