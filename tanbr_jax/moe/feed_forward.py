"""One dense feed-forward block, plain or gated.

Letters: D model width, F hidden width, R blocks in a stack.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from tanbr_jax import kernels
from tanbr_jax.moe.parameters import (
  T,
  check_arrays,
  check_type,
)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class FeedForward:
  """`act(x w_in) w_out`, or `(act(x w_gate) * (x w_in)) w_out` if gated.

  A stack of R blocks has a leading R axis on every array but the shared ones.

  Attributes:
    w_in: [D, F].
    w_out: [F, D].
    w_gate: [D, F]; None is the plain block.
    b_in: [F], added to `x w_in`.
    b_gate: [F], added to `x w_gate`.
    b_out: [D], added to the output.
    shared: a block that is added to the output (DeepSeekMoE, Dai et al., 2024).
      Several shared experts are one wider block.
    shared_gate: [D, 1], whose sigmoid scales the shared block (Qwen1.5-MoE).
    activation: a name in `kernels.ACTIVATIONS`; static.
  """

  w_in: jax.Array
  w_out: jax.Array
  w_gate: jax.Array | None = None
  b_in: jax.Array | None = None
  b_gate: jax.Array | None = None
  b_out: jax.Array | None = None
  shared: "FeedForward | None" = None
  shared_gate: jax.Array | None = None
  activation: str = dataclasses.field(
    default="relu2", metadata={"static": True}
  )


def apply(feed_forward: FeedForward, x: jax.Array) -> jax.Array:
  """Applies one dense block, or each of a stack to its own part of x.

  Args:
    feed_forward: one block, or R of them as `moe.merge` stacks them.
    x: [..., D] of the block's type; [R, ..., D] for a stack.

  Returns:
    The shape and type of x.

  Raises:
    ValueError: if the shapes disagree or the activation is unknown.
  """
  kernels.check_is_array(x=x)
  check_arrays(feed_forward)
  w_in = feed_forward.w_in
  is_stack = w_in.ndim == 3
  if x.shape[-1:] != w_in.shape[-2:-1] or (
    is_stack and (x.ndim < 2 or x.shape[0] != w_in.shape[0])
  ):
    raise ValueError(
      "x must be [..., D] for w_in [D, F] and [R, ..., D] for w_in [R, D, F], "
      f"got x {x.shape}, w_in {w_in.shape}"
    )
  check_type(feed_forward, x)
  own = without_shared(feed_forward)
  out = (jax.vmap(_dense) if is_stack else _dense)(own, x)
  return add_shared(out, feed_forward, x)


def apply_all(feed_forward: FeedForward, x: jax.Array) -> jax.Array:
  """Applies every block of a stack to the same x.

  Args:
    feed_forward: R blocks, as `moe.merge` stacks them.
    x: [..., D] of the blocks' type.

  Returns:
    [R, ..., D] of x's type.

  Raises:
    ValueError: if the shapes disagree or the activation is unknown.
  """
  kernels.check_is_array(x=x)
  check_arrays(feed_forward)
  w_in = feed_forward.w_in
  if w_in.ndim != 3 or x.shape[-1:] != w_in.shape[1:2]:
    raise ValueError(
      "x must be [..., D] for a stack w_in [R, D, F], got "
      f"x {x.shape}, w_in {w_in.shape}"
    )
  check_type(feed_forward, x)
  # One copy of x for each block: as a product of one x with all matrices, XLA
  # would first copy the matrices, which are larger, side by side.
  copies = jnp.broadcast_to(x[None], (w_in.shape[0], *x.shape))
  out = jax.vmap(_dense)(without_shared(feed_forward), copies)
  return add_shared(out, feed_forward, x)


def hidden_units(feed_forward: FeedForward, x: jax.Array) -> jax.Array:
  """Returns [..., F] of x's type, what a block's `w_out` reads for x [..., D].

  Args:
    feed_forward: one block, whose shared block is left out.
    x: [..., D] of the block's type.
  """
  hidden, gate = _affine(x, feed_forward.w_in, feed_forward.b_in), None
  if feed_forward.w_gate is not None:
    gate = _affine(x, feed_forward.w_gate, feed_forward.b_gate)
  return kernels.activate(feed_forward.activation, hidden, gate).astype(x.dtype)


def add_shared(out: jax.Array, block: Any, x: jax.Array) -> jax.Array:
  """Adds the shared block's output for x, if there is a shared block.

  Args:
    out: [..., D], or [R, ..., D] with R outputs for the same x.
    block: `Experts` or a `FeedForward`.
    x: [..., D].
  """
  if block.shared is None:
    return out
  shared = apply(block.shared, x)
  if block.shared_gate is not None:
    shared = shared * jax.nn.sigmoid(x @ block.shared_gate)
  return out + (shared if out.ndim == x.ndim else shared[None])


def without_shared(block: T) -> T:
  """Returns the `Experts` or `FeedForward` without what is shared."""
  return dataclasses.replace(block, shared=None, shared_gate=None)


def _dense(block: FeedForward, x: jax.Array) -> jax.Array:
  return _affine(hidden_units(block, x), block.w_out, block.b_out)


def _affine(x: jax.Array, w: jax.Array, b: jax.Array | None) -> jax.Array:
  out = x @ w
  # Ranks are made equal by hand, for callers who refuse promotion.
  return out if b is None else out + b.reshape((1,) * (x.ndim - 1) + b.shape)
