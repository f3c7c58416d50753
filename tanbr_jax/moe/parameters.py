"""Checks that `Experts` and `FeedForward` have in common."""

import math
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from tanbr_jax import kernels
from tanbr_jax.checks.names import check_choice

T = TypeVar("T")
# The arrays of a block; those of `Experts` have a leading E axis.
ARRAYS = ("w_in", "w_out", "w_gate", "b_in", "b_gate", "b_out")


def activation_of(name: str) -> Callable[[jax.Array], jax.Array]:
  """Returns the elementwise function of that name.

  Raises:
    ValueError: if there is none.
  """
  check_choice("activation", name, kernels.ACTIVATIONS)
  return kernels.ACTIVATIONS[name]


def is_integer(value: Any) -> bool:
  """Tells whether a value is an integer of Python or NumPy, and no bool."""
  return isinstance(value, int | np.integer) and not isinstance(value, bool)


def check_number(
  name: str, value: float, *, at_least: float = -math.inf
) -> None:
  """Refuses a number that is not finite or too small; traced ones pass.

  Raises:
    ValueError: with the value.
  """
  if isinstance(value, jax.core.Tracer):
    return
  if not math.isfinite(value) or value < at_least:
    rule = "" if at_least == -math.inf else f" and at least {at_least:g}"
    raise ValueError(f"{name} must be finite{rule}, got {name}={value}")


def check_weights(name: str, weights: jax.Array, num_experts: int) -> None:
  """Refuses merge weights that are no floating array [E] or [R, E], R >= 1.

  Raises:
    ValueError: with what was given.
  """
  kernels.check_is_array(**{name: weights})
  if (
    weights.ndim not in (1, 2)
    or weights.shape[-1] != num_experts
    or 0 in weights.shape
    or not jnp.issubdtype(weights.dtype, jnp.floating)
  ):
    raise ValueError(
      f"{name} must be floating [num_experts] or [R, num_experts] with R >= 1, "
      f"got {name} {weights.dtype}{weights.shape}, num_experts={num_experts}"
    )


def check_arrays(block: Any) -> None:
  """Refuses arrays whose shapes disagree and unknown activations.

  Args:
    block: `Experts` or a `FeedForward`.

  Raises:
    ValueError: with the first array of an unexpected shape, a gate of nothing,
      or an activation that `kernels` does not have.
  """
  activation_of(block.activation)
  if block.w_in.ndim < 2:
    raise ValueError(f"w_in must be [..., D, F], got w_in {block.w_in.shape}")
  *lead, model_dim, hidden_dim = block.w_in.shape
  expected = {
    "w_out": (*lead, hidden_dim, model_dim),
    "w_gate": (*lead, model_dim, hidden_dim),
    "b_in": (*lead, hidden_dim),
    "b_gate": (*lead, hidden_dim),
    "b_out": (*lead, model_dim),
    "shared_gate": (model_dim, 1),
  }
  for name, shape in expected.items():
    array = getattr(block, name)
    if array is not None and array.shape != shape:
      raise ValueError(
        f"{name} must be {shape} for w_in {block.w_in.shape}, got {array.shape}"
      )
  for name, of in (("b_gate", "w_gate"), ("shared_gate", "shared")):
    if getattr(block, name) is not None and getattr(block, of) is None:
      raise ValueError(f"{name} needs {of}, got {of}=None")


def check_type(block: Any, x: jax.Array) -> None:
  """Refuses an x of another type than one of the block's arrays.

  Raises:
    ValueError: with both types.
  """
  for name in ARRAYS:
    array = getattr(block, name)
    if array is not None and x.dtype != array.dtype:
      raise ValueError(
        "x must be of the parameters' type, got "
        f"x {x.dtype}, {name} {array.dtype}"
      )
