"""The weighted sum of stacked arrays: what merging experts costs."""

import jax
import jax.numpy as jnp
from jax import lax

from tanbr_jax.kernels import implementations


def weighted_sum(
  experts: jax.Array,
  weights: jax.Array,
  *,
  implementation: str | None = None,
) -> jax.Array:
  """Returns `sum_e weights[e] * experts[e]`.

  Products and sums are taken in float32 whatever the experts' type, and the
  result is cast back.

  Args:
    experts: [E, ...] floating.
    weights: [E] floating.
    implementation: None (the best one for the device) or "xla".

  Returns:
    [...] of the experts' type.

  Raises:
    ValueError: if the first axes differ, or the implementation is unknown.
  """
  if weights.ndim != 1 or experts.shape[:1] != weights.shape:
    raise ValueError(
      "weights must be [E] for experts [E, ...], got "
      f"weights {weights.shape}, experts {experts.shape}"
    )
  run = implementations.select(implementation, {"xla": _xla})
  return run(experts, weights)


def _xla(experts: jax.Array, weights: jax.Array) -> jax.Array:
  total = lax.platform_dependent(
    experts.astype(jnp.float32),
    weights.astype(jnp.float32),
    cpu=_as_product,
    default=_as_sum,
  )
  return total.astype(experts.dtype)


def _as_product(experts: jax.Array, weights: jax.Array) -> jax.Array:
  # XLA does not vectorise a sum over the first axis on a CPU: the product is
  # thirty times as fast there.
  flat = experts.reshape(experts.shape[0], -1)
  return jnp.matmul(weights, flat, precision="highest").reshape(
    experts.shape[1:]
  )


def _as_sum(experts: jax.Array, weights: jax.Array) -> jax.Array:
  # One fused pass at the memory's speed; as a product it falls below that on
  # a GPU when the experts are few and large.
  weights = weights.reshape((-1,) + (1,) * (experts.ndim - 1))
  return jnp.sum(experts * weights, axis=0)
