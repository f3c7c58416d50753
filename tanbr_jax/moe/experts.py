"""E feed-forward blocks as one stacked tree.

Letters: E experts, D model width, F an expert's hidden width.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from tanbr_jax.moe.feed_forward import FeedForward
from tanbr_jax.moe.parameters import ARRAYS, activation_of

# E[act(h)^2] of a standard normal h: the integral of act(h)^2 times the normal
# density.
SECOND_MOMENTS = {
  "clamped_swish": 0.42195281,
  "gelu": 0.42522148,
  "gelu_tanh": 0.42519371,
  "relu": 0.5,
  "relu2": 1.5,
  "silu": 0.35577552,
}


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Experts:
  """E feed-forward blocks, stacked; the fields are those of `FeedForward`.

  Attributes:
    w_in: [E, D, F].
    w_out: [E, F, D].
    w_gate: [E, D, F]; None is the plain block.
    b_in: [E, F], or None; as are the other biases.
    b_gate: [E, F].
    b_out: [E, D].
    shared: one block that every token passes, in addition to its experts.
    shared_gate: [D, 1], whose sigmoid scales the shared block.
    activation: a name in `kernels.ACTIVATIONS`; static.
  """

  w_in: jax.Array
  w_out: jax.Array
  w_gate: jax.Array | None = None
  b_in: jax.Array | None = None
  b_gate: jax.Array | None = None
  b_out: jax.Array | None = None
  shared: FeedForward | None = None
  shared_gate: jax.Array | None = None
  activation: str = dataclasses.field(
    default="relu2", metadata={"static": True}
  )

  @property
  def num_experts(self) -> int:
    """E."""
    return self.w_in.shape[0]


def take_experts(experts: Experts, ids: Sequence[int]) -> Experts:
  """The stack of these experts, in this order; what is shared stays.

  Args:
    experts: E stacked experts.
    ids: in [0, E).
  """
  rows = jnp.asarray(ids, jnp.int32)
  arrays = {name: getattr(experts, name) for name in ARRAYS}
  return dataclasses.replace(
    experts,
    **{n: x[rows] for n, x in arrays.items() if x is not None},
  )


def init_experts(
  key: jax.Array,
  num_experts: int,
  *,
  model_dim: int,
  expert_dim: int,
  activation: str = "relu2",
  is_gated: bool = False,
  has_biases: bool = False,
  shared_dim: int | None = None,
  has_shared_gate: bool = False,
) -> Experts:
  """Draws experts whose outputs have about the variance of their inputs.

  Args:
    key: random key, consumed.
    num_experts: E.
    model_dim: D.
    expert_dim: F.
    activation: a name in `kernels.ACTIVATIONS`.
    is_gated: whether there is a `w_gate` (GLU variants, Shazeer, 2020).
    has_biases: whether there are biases, zeros at first.
    shared_dim: hidden width of the shared block; None is no such block.
    has_shared_gate: whether a sigmoid of each token scales the shared block.

  Returns:
    Float32 `Experts`.

  Raises:
    ValueError: if a size is below 1, the activation is unknown, or there is a
      gate for a shared block but no such block.
  """
  _check(num_experts, model_dim, expert_dim, shared_dim, has_shared_gate)
  draw = functools.partial(
    _draw,
    model_dim=model_dim,
    activation=activation,
    is_gated=is_gated,
    has_biases=has_biases,
  )
  arrays = draw(key, (num_experts,), hidden_dim=expert_dim)
  shared_key, gate_key = jax.random.split(jax.random.fold_in(key, 3))
  if shared_dim is not None:
    block = draw(shared_key, (), hidden_dim=shared_dim)
    arrays["shared"] = FeedForward(**block, activation=activation)
  if has_shared_gate:
    gate = jax.random.normal(gate_key, (model_dim, 1), jnp.float32)
    arrays["shared_gate"] = gate * model_dim**-0.5
  return Experts(**arrays, activation=activation)


def _draw(
  key: jax.Array,
  lead: tuple[int, ...],
  *,
  model_dim: int,
  hidden_dim: int,
  activation: str,
  is_gated: bool,
  has_biases: bool,
) -> dict[str, Any]:
  in_key, out_key = jax.random.split(key)
  activation_of(activation)
  # A gate is independent of what it multiplies, whose second moment is 1.
  scale_out = (SECOND_MOMENTS[activation] * hidden_dim) ** -0.5
  shape_in = (*lead, model_dim, hidden_dim)
  shape_out = (*lead, hidden_dim, model_dim)
  arrays = {
    "w_in": jax.random.normal(in_key, shape_in, jnp.float32) * model_dim**-0.5,
    "w_out": jax.random.normal(out_key, shape_out, jnp.float32) * scale_out,
  }
  if is_gated:
    gate = jax.random.normal(jax.random.fold_in(key, 2), shape_in, jnp.float32)
    arrays["w_gate"] = gate * model_dim**-0.5
  if has_biases:
    arrays["b_in"] = jnp.zeros((*lead, hidden_dim), jnp.float32)
    arrays["b_out"] = jnp.zeros((*lead, model_dim), jnp.float32)
  if is_gated and has_biases:
    arrays["b_gate"] = jnp.zeros((*lead, hidden_dim), jnp.float32)
  return arrays


def _check(
  num_experts: int,
  model_dim: int,
  expert_dim: int,
  shared_dim: int | None,
  has_shared_gate: bool,
) -> None:
  sizes = {
    "num_experts": num_experts,
    "model_dim": model_dim,
    "expert_dim": expert_dim,
    "shared_dim": 1 if shared_dim is None else shared_dim,
  }
  for name, size in sizes.items():
    if size < 1:
      raise ValueError(f"{name} must be at least 1, got {name}={size}")
  if has_shared_gate and shared_dim is None:
    raise ValueError(
      "has_shared_gate needs a shared block, got shared_dim=None"
    )
