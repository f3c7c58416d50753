"""The weighted sum of stacked arrays, which merges experts.

Letters: E experts, R results (weight vectors).

Products and sums are float32. An expert of weight 0 is not there: it does not
reach the result even if it holds NaN or infinity, which 0 * NaN would let in.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

from tanbr_jax.kernels import implementations
from tanbr_jax.kernels.arrays import check_is_array
from tanbr_jax.kernels.implementations import Implementation
from tanbr_jax.kernels.multilinear import Multilinear
from tanbr_jax.simplex.varying import alike

# On a CPU several results of more experts than this are a matrix product.
_UNROLLED = 16


def weighted_sum(
  experts: jax.Array,
  weights: jax.Array,
  *,
  implementation: str | None = None,
) -> jax.Array:
  """Returns `sum_e weights[..., e] * experts[e]`.

  Products and sums are taken in float32 whatever the experts' type, and the
  result is cast back. An expert whose weight is exactly 0 adds nothing even
  if it holds NaN or infinity; the gradient with respect to its weight is its
  inner product with the cotangent all the same. Derivatives of every order, in
  either mode, are those of a function that is linear in both arguments.

  Args:
    experts: [E, ...] floating.
    weights: [E] or [R, E] floating: R results in one pass over the experts
      (on a Hopper GPU one pass for every 16 of them). `vmap` over the weights
      alone is such a pass too.
    implementation: None (the best one for the device), "xla" or "mosaic_gpu".

  Returns:
    [...] or [R, ...] of the experts' type.

  Raises:
    ValueError: if the axes of experts differ, there are no weights, one of the
      two is no floating array, or the implementation cannot run.
  """
  check_is_array(experts=experts, weights=weights)
  if (
    weights.ndim not in (1, 2)
    or 0 in weights.shape
    or experts.shape[:1] != weights.shape[-1:]
    or not jnp.issubdtype(weights.dtype, jnp.floating)
    or not jnp.issubdtype(experts.dtype, jnp.floating)
  ):
    raise ValueError(
      "weights must be floating [E] or [R, E], not empty, for floating experts "
      f"[E, ...], got weights {weights.dtype}{weights.shape}, "
      f"experts {experts.dtype}{experts.shape}"
    )
  rows = jnp.atleast_2d(weights)
  run = _best
  if implementation is not None:
    run = implementations.select(implementation, _TABLE, experts, rows)
  result = run(experts, rows)
  return result if weights.ndim == 2 else result[0]


def _experts_grad(
  grad: jax.Array, experts: jax.ShapeDtypeStruct, weights: jax.Array
) -> jax.Array:
  flat_grad = grad.reshape(grad.shape[0], -1)
  out = _einsum(
    "re,rx->ex", weights.astype(jnp.float32), flat_grad.astype(jnp.float32)
  )
  return out.astype(experts.dtype).reshape(experts.shape)


def _weights_grad(
  grad: jax.Array, experts: jax.Array, weights: jax.ShapeDtypeStruct
) -> jax.Array:
  flat = experts.reshape(experts.shape[0], -1)
  out = _einsum("rx,ex->re", grad.reshape(grad.shape[0], -1), flat)
  return out.astype(weights.dtype)


_einsum = functools.partial(
  jnp.einsum, precision="highest", preferred_element_type=jnp.float32
)


def _results_as_rows(
  function: Multilinear,
  is_batched: tuple[bool, ...],
  experts: jax.Array,
  weights: jax.Array,
) -> jax.Array | None:
  """`vmap` over the weights alone is one call with more results."""
  if is_batched[0]:
    return None
  out = function(experts, weights.reshape(-1, weights.shape[-1]))
  return out.reshape(*weights.shape[:2], *out.shape[1:])


def _differentiable(run: Callable[..., jax.Array]) -> Multilinear:
  return Multilinear(run, (_experts_grad, _weights_grad), _results_as_rows)


@_differentiable
def _xla(experts: jax.Array, weights: jax.Array) -> jax.Array:
  weights = weights.astype(jnp.float32)
  total = lax.platform_dependent(
    experts, weights, cpu=_on_cpu, default=_on_accelerator
  )
  return total.astype(experts.dtype)


def _on_cpu(experts: jax.Array, weights: jax.Array) -> jax.Array:
  if weights.shape[0] == 1 or experts.shape[0] <= _UNROLLED:
    return _as_additions(experts, weights)
  return _as_product(experts, weights)


def _on_accelerator(experts: jax.Array, weights: jax.Array) -> jax.Array:
  # One result is one fused pass at the memory's speed. As a product it falls
  # below that when the experts are few and large.
  if weights.shape[0] == 1:
    weights = weights.reshape((-1,) + (1,) * (experts.ndim - 1))
    return jnp.sum(_scaled(experts, weights), axis=0)[None]
  return _as_product(experts, weights)


def _scaled(experts: jax.Array, weights: jax.Array) -> jax.Array:
  product = weights * experts.astype(jnp.float32)
  return jnp.where(weights == 0, jnp.zeros_like(product), product)


def _as_additions(experts: jax.Array, weights: jax.Array) -> jax.Array:
  # XLA does not vectorise a sum over the first axis on a CPU: additions of
  # whole experts are sixty times as fast there, and up to twice a product.
  num_experts, num_results = experts.shape[0], weights.shape[0]

  def add(total: jax.Array, pair: tuple) -> tuple[jax.Array, None]:
    expert, weight = pair
    weight = weight.reshape((num_results,) + (1,) * expert.ndim)
    return total + _scaled(expert[None], weight), None

  total = jnp.zeros((num_results, *experts.shape[1:]), jnp.float32)
  total = alike(total, experts, weights)
  unroll = num_experts if num_experts <= _UNROLLED else 1
  return lax.scan(add, total, (experts, weights.T), unroll=unroll)[0]


def _as_product(experts: jax.Array, weights: jax.Array) -> jax.Array:
  flat = experts.reshape(experts.shape[0], -1).astype(jnp.float32)
  total = jnp.matmul(weights, flat, precision="highest")
  total = total.reshape(weights.shape[:1] + experts.shape[1:])
  # A product lets an expert of weight 0 in if that holds NaN or infinity,
  # which shows in the result.
  return lax.cond(
    jnp.all(jnp.isfinite(total)),
    lambda: total,
    lambda: _as_additions(experts, weights),
  )


def _kernel(experts: jax.Array, weights: jax.Array) -> jax.Array:
  return implementations.mosaic_gpu().weighted_sum(experts, weights)


@_differentiable
def _mosaic_gpu(experts: jax.Array, weights: jax.Array) -> jax.Array:
  run = implementations.on_platform("cuda", _kernel, _xla)
  return run(experts, weights)


def _why_not_mosaic_gpu(experts: jax.Array, weights: jax.Array) -> str | None:
  return implementations.why_not_mosaic_gpu(
    "weighted_sum", experts.shape, weights.shape, experts.dtype
  )


_TABLE = {
  "mosaic_gpu": Implementation(_mosaic_gpu, _why_not_mosaic_gpu),
  "xla": Implementation(_xla),
}


@_differentiable
def _best(experts: jax.Array, weights: jax.Array) -> jax.Array:
  # Chosen here and not by the caller, as `vmap` makes more results of one.
  run = implementations.select(None, _TABLE, experts, weights)
  return run(experts, weights)
