"""Merges of its own for each example, segment, or set of selected experts.

Each of them holds as many merged blocks as it has weight vectors, made in one
pass over the experts. Letters: B examples, S positions, E experts, D model
width, C segments.
"""

import functools

import jax
import jax.numpy as jnp

from tanbr_jax import kernels
from tanbr_jax.moe import feed_forward
from tanbr_jax.moe.expert_merging import merge
from tanbr_jax.moe.experts import Experts
from tanbr_jax.moe.routing import Routing, check_shapes, dense_gates


def merged_per_example(
  experts: Experts,
  x: jax.Array,
  merge_weights: jax.Array,
  *,
  implementation: str | None = None,
) -> jax.Array:
  """Applies to each example the block that its own weights merge.

  SMEAR (Muqeeth et al., Soft Merging of Experts with Adaptive Routing, 2023),
  with the weights of `example_weights`. What the weights are the mean of is a
  reconstruction [R]: to route an example's mean hidden state instead, give
  that router's probabilities.

  Args:
    experts: E stacked experts.
    x: [B, ..., D] of the experts' type.
    merge_weights: [B, E].
    implementation: of `kernels.weighted_sum`.

  Returns:
    The shape and type of x.

  Raises:
    ValueError: if shapes disagree, the activation is unknown or the
      implementation cannot run.
  """
  kernels.check_is_array(x=x, merge_weights=merge_weights)
  if x.ndim < 2 or merge_weights.shape != (x.shape[0], experts.num_experts):
    raise ValueError(
      "merge_weights must be [B, E] for x [B, ..., D], got "
      f"merge_weights {merge_weights.shape}, x {x.shape}, "
      f"num_experts={experts.num_experts}"
    )
  if x.shape[0] == 0:
    # The shapes are checked as those of one example are, which is not computed.
    one = jax.ShapeDtypeStruct((1, *x.shape[1:]), x.dtype)
    weights = jax.ShapeDtypeStruct((1, experts.num_experts), x.dtype)
    jax.eval_shape(
      functools.partial(merged_per_example, implementation=implementation),
      experts,
      one,
      weights,
    )
    return x
  block = merge(experts, merge_weights, implementation=implementation)
  own = feed_forward.apply(feed_forward.without_shared(block), x)
  return feed_forward.add_shared(own, experts, x)


def merged_per_segment(
  experts: Experts,
  x: jax.Array,
  merge_weights: jax.Array,
  *,
  segment_length: int,
  implementation: str | None = None,
) -> jax.Array:
  """Applies to each segment of a sequence the block of its own weights.

  Lory (Zhong et al., 2024), with the weights of `segment_weights`, which are a
  reconstruction [R] as those of `merged_per_example` are.

  Args:
    experts: E stacked experts.
    x: [B, S, D] of the experts' type.
    merge_weights: [B, C, E], C the number of segments, S / segment_length
      rounded up: the last segment may be shorter.
    segment_length: positions of a segment.
    implementation: of `kernels.weighted_sum`.

  Returns:
    [B, S, D] of x's type.

  Raises:
    ValueError: if shapes disagree, the segments are shorter than 1, the
      activation is unknown or the implementation cannot run.
  """
  num_segments = _num_segments(x, segment_length)
  shape = (x.shape[0], num_segments, experts.num_experts)
  if merge_weights.shape != shape:
    raise ValueError(
      f"merge_weights must be [B, C, E] = {shape}, got "
      f"merge_weights {merge_weights.shape}"
    )
  batch, length, model_dim = x.shape
  padding = num_segments * segment_length - length
  segments = jnp.pad(x, ((0, 0), (0, padding), (0, 0))).reshape(
    batch * num_segments, segment_length, model_dim
  )
  out = merged_per_example(
    experts,
    segments,
    merge_weights.reshape(-1, experts.num_experts),
    implementation=implementation,
  )
  return out.reshape(batch, -1, model_dim)[:, :length]


def merged_of_selected(
  experts: Experts,
  x: jax.Array,
  routing: Routing,
  *,
  implementation: str | None = None,
) -> jax.Array:
  """Merges the selected experts by gate and applies the result once.

  MEO (He et al., Merging Experts into One, 2023): one block's FLOPs
  instead of K. Gates that do not sum to one scale the merged parameters,
  not the output.

  Args:
    experts: E stacked experts.
    x: [N, D], each token with its own merge, or [N, ..., D], each sequence.
    routing: of these N tokens or sequences. Skipped pairs are left out; one
      with none left has zeros for parameters.
    implementation: of `kernels.weighted_sum`.

  Returns:
    The shape and type of x.

  Raises:
    ValueError: if shapes disagree, the activation is unknown or the
      implementation cannot run.
  """
  kernels.check_is_array(x=x)
  check_shapes(routing, num_tokens=x.shape[0], num_experts=experts.num_experts)
  return merged_per_example(
    experts, x, dense_gates(routing), implementation=implementation
  )


def example_weights(
  probabilities: jax.Array, is_token: jax.Array | None = None
) -> jax.Array:
  """Returns [B, E], each example's mean router probabilities.

  Args:
    probabilities: [B, S, E].
    is_token: [B, S] bool, False at padding; None is no padding. An example of
      padding alone gets zeros.

  Raises:
    ValueError: if the shapes disagree.
  """
  if probabilities.ndim != 3:
    raise ValueError(
      f"probabilities must be [B, S, E], got {probabilities.shape}"
    )
  if is_token is None:
    return jnp.mean(probabilities, axis=1)
  if is_token.shape != probabilities.shape[:2]:
    raise ValueError(
      "is_token must be [B, S] for probabilities [B, S, E], got "
      f"is_token {is_token.shape}, probabilities {probabilities.shape}"
    )
  total = jnp.sum(jnp.where(is_token[..., None], probabilities, 0), axis=1)
  count = jnp.sum(is_token, axis=1, keepdims=True, dtype=probabilities.dtype)
  return total / jnp.maximum(count, 1)


def segment_weights(
  probabilities: jax.Array,
  *,
  segment_length: int,
  first_weights: jax.Array | None = None,
) -> jax.Array:
  """Returns [B, C, E]: each segment's weights are the mean of the one before.

  So no output depends on a later position (Lory, Zhong et al., 2024). The
  first segment has none before it; its weights are an argument.

  Args:
    probabilities: [B, S, E] of the router.
    segment_length: positions of a segment; the last one may be shorter.
    first_weights: [E], of every first segment; None is uniform.

  Raises:
    ValueError: if the segments are shorter than 1 or a shape is impossible.
  """
  num_segments = _num_segments(probabilities, segment_length)
  batch, _, num_experts = probabilities.shape
  if first_weights is None:
    first_weights = jnp.full(num_experts, 1 / num_experts, probabilities.dtype)
  if first_weights.shape != (num_experts,):
    raise ValueError(
      "first_weights must be [E], got "
      f"first_weights {first_weights.shape}, num_experts={num_experts}"
    )
  first = jnp.broadcast_to(first_weights, (batch, 1, num_experts))
  # The last segment, which may be shorter, is nobody's previous one.
  whole = probabilities[:, : (num_segments - 1) * segment_length]
  whole = whole.reshape(batch, num_segments - 1, segment_length, num_experts)
  return jnp.concatenate([first, jnp.mean(whole, axis=2)], axis=1)


def _num_segments(x: jax.Array, segment_length: int) -> int:
  if x.ndim != 3 or segment_length < 1 or x.shape[1] < 1:
    raise ValueError(
      "needs [B, S, ...] with S >= 1 and segment_length >= 1, got shape "
      f"{x.shape}, segment_length={segment_length}"
    )
  return -(-x.shape[1] // segment_length)
