"""Forwards over the same experts: routed to a few, or merged into one.

Letters: N tokens, E experts, K experts per token, D model width.
"""

import jax
import jax.numpy as jnp

from tanbr_jax import kernels
from tanbr_jax.moe.experts import Experts, FeedForward, activation
from tanbr_jax.moe.routing import Routing


def routed(
  experts: Experts,
  x: jax.Array,
  routing: Routing,
  *,
  implementation: str | None = None,
) -> jax.Array:
  """Sends each token to its K experts and adds their outputs by gate.

  No expert has a capacity, so no token is dropped: the N * K copies are
  sorted by expert and multiplied group by group.

  Args:
    experts: E stacked experts.
    x: [N, D], of the experts' type.
    routing: of these N tokens.
    implementation: of `kernels.grouped_matmul`.

  Returns:
    [N, D] of x's type.
  """
  num_selected = routing.expert_ids.shape[1]
  expert_ids = routing.expert_ids.reshape(-1)
  order = jnp.argsort(expert_ids, stable=True)
  place = (
    jnp.zeros_like(order)
    .at[order]
    .set(jnp.arange(order.size, dtype=order.dtype), unique_indices=True)
  )
  sizes = jnp.bincount(expert_ids, length=experts.num_experts)
  sizes = sizes.astype(jnp.int32)
  copies = jnp.repeat(x, num_selected, axis=0)
  out = _permute(copies, order, place)
  for matrix, function in (
    (experts.w_in, activation),
    (experts.w_out, lambda y: y),
  ):
    out = function(
      kernels.grouped_matmul(out, matrix, sizes, implementation=implementation)
    )
  out = _permute(out, place, order).reshape(x.shape[0], num_selected, -1)
  return jnp.sum(out * routing.gates.astype(x.dtype)[..., None], axis=1)


def merged(feed_forward: FeedForward, x: jax.Array) -> jax.Array:
  """Applies one dense block.

  Args:
    feed_forward: what `merge` returns.
    x: [..., D], of the block's type.

  Returns:
    [..., D] of x's type.
  """
  return activation(x @ feed_forward.w_in) @ feed_forward.w_out


@jax.custom_vjp
def _permute(x: jax.Array, order: jax.Array, inverse: jax.Array) -> jax.Array:
  del inverse
  return x[order]


def _permute_forward(
  x: jax.Array, order: jax.Array, inverse: jax.Array
) -> tuple[jax.Array, jax.Array]:
  return _permute(x, order, inverse), inverse


def _permute_backward(
  inverse: jax.Array, grad: jax.Array
) -> tuple[jax.Array, None, None]:
  # A gather too; what JAX would derive is a scatter-add, many times slower.
  return grad[inverse], None, None


_permute.defvjp(_permute_forward, _permute_backward)
