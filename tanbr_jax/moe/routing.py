"""Routing as data: what a router decided, and small functions that change it.

A forward needs nothing else of a router, so a new router is a function that
returns a `Routing`. Letters: N tokens, E experts, K experts per token.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from tanbr_jax import kernels
from tanbr_jax.moe.parameters import check_number

NO_EXPERT = -1


class Routing(NamedTuple):
  """The decision of a router for N tokens.

  Attributes:
    expert_ids: [N, K] int32, the chosen experts, the best first. A pair whose
      id is `NO_EXPERT`, or anything else outside [0, E), is skipped: it costs
      nothing and adds nothing.
    gates: [N, K], each chosen expert's share in the token's output.
    probabilities: [N, E] float32, the router's distribution over the experts
      before any selection.
  """

  expert_ids: jax.Array
  gates: jax.Array
  probabilities: jax.Array


def is_expert(routing: Routing) -> jax.Array:
  """Returns [N, K, E] booleans: which expert each pair goes to, if any."""
  experts = jnp.arange(routing.probabilities.shape[-1], dtype=jnp.int32)
  return routing.expert_ids[:, :, None] == experts[None, None]


def is_active(routing: Routing) -> jax.Array:
  """Returns [N, K] booleans: which pairs are not skipped."""
  num_experts = routing.probabilities.shape[-1]
  return (routing.expert_ids >= 0) & (routing.expert_ids < num_experts)


def all_tokens(token_mask: jax.Array | None, num_tokens: int) -> jax.Array:
  """Returns a token mask [N], or one that masks nothing for None.

  Raises:
    ValueError: if it is not a bool array [N].
  """
  if token_mask is None:
    return jnp.ones(num_tokens, bool)
  kernels.check_is_array(token_mask=token_mask)
  if token_mask.dtype != jnp.bool_ or token_mask.shape != (num_tokens,):
    raise ValueError(
      f"token_mask must be bool [N] = [{num_tokens}], got "
      f"{token_mask.dtype}{token_mask.shape}"
    )
  return token_mask


def keep_pairs(routing: Routing, is_kept: jax.Array) -> Routing:
  """Skips the pairs that are not kept; the gates of the others stay.

  Args:
    routing: of N tokens.
    is_kept: [N, K] bool.
  """
  return routing._replace(
    expert_ids=jnp.where(is_kept, routing.expert_ids, NO_EXPERT),
    gates=jnp.where(is_kept, routing.gates, jnp.zeros_like(routing.gates)),
  )


def apply_mask(routing: Routing, mask: jax.Array) -> Routing:
  """Skips the pairs whose expert is masked out.

  Gates are not scaled up for what is lost; `normalise_gates` does that.

  Args:
    routing: of N tokens.
    mask: [N, E] bool, or [E] for every token; False is masked out.

  Raises:
    ValueError: if the mask is of another shape or not boolean.
  """
  kernels.check_is_array(mask=mask)
  shape = routing.probabilities.shape
  if mask.dtype != jnp.bool_ or mask.shape not in (shape, shape[-1:]):
    raise ValueError(
      "mask must be bool [N, E] or [E], got "
      f"mask {mask.dtype}{mask.shape} for [N, E] = {shape}"
    )
  rows = jnp.broadcast_to(mask.reshape((-1, shape[-1])), shape)
  return keep_pairs(
    routing, jnp.any(is_expert(routing) & rows[:, None, :], axis=-1)
  )


def normalise_gates(routing: Routing) -> Routing:
  """Scales each token's gates to sum to one; a token without any keeps none."""
  active = is_active(routing)
  gates = jnp.where(active, routing.gates, jnp.zeros_like(routing.gates))
  total = jnp.sum(gates, axis=-1, keepdims=True)
  # The inner where keeps 0/0 out of the gradient too.
  total = jnp.where(total == 0, jnp.ones_like(total), total)
  return routing._replace(gates=gates / total)


def scale_gates(routing: Routing, scale: float) -> Routing:
  """Multiplies all gates (`routed_scaling_factor` of DeepSeek-V2 and V3).

  Raises:
    ValueError: if the scale is not finite.
  """
  check_number("scale", scale)
  gates = routing.gates * jnp.asarray(scale, routing.gates.dtype)
  return routing._replace(gates=gates)


def dense_gates(routing: Routing) -> jax.Array:
  """Returns [N, E], each expert's gate, zeros for those not chosen.

  They are the weights of `soft` and of merging the selected experts.
  """
  gates = routing.gates[..., None]
  return jnp.sum(jnp.where(is_expert(routing), gates, 0), axis=1)


def check_routing(
  routing: Routing, *, num_tokens: int, num_experts: int
) -> None:
  """Refuses a routing that the forwards could only misread.

  Values are read, so this is for the outside of `jax.jit`; inside, a pair with
  an id out of range is skipped.

  Args:
    routing: the record to check.
    num_tokens: N.
    num_experts: E.

  Raises:
    ValueError: if shapes or types disagree, an id is neither `NO_EXPERT` nor
      in [0, E), or the gate of a pair that is not skipped is not finite.
  """
  check_shapes(routing, num_tokens=num_tokens, num_experts=num_experts)
  ids = np.asarray(routing.expert_ids)
  wrong = (ids != NO_EXPERT) & ((ids < 0) | (ids >= num_experts))
  _refuse(
    ids, wrong, f"expert_ids must be {NO_EXPERT} or in [0, {num_experts})"
  )
  gates = np.asarray(routing.gates.astype(jnp.float32))
  wrong = (ids != NO_EXPERT) & ~np.isfinite(gates)
  _refuse(gates, wrong, "gates must be finite")


def check_shapes(
  routing: Routing, *, num_tokens: int, num_experts: int
) -> None:
  """Refuses shapes and types that disagree; reads no values.

  Args:
    routing: the record to check.
    num_tokens: N.
    num_experts: E.

  Raises:
    ValueError: if they disagree, or ids are not integers.
  """
  ids, gates, probabilities = routing
  if (
    ids.ndim != 2
    or not jnp.issubdtype(ids.dtype, jnp.integer)
    or ids.shape[0] != num_tokens
    or gates.shape != ids.shape
    or probabilities.shape != (num_tokens, num_experts)
  ):
    raise ValueError(
      f"needs a routing of N={num_tokens} tokens to E={num_experts} experts, "
      f"got expert_ids {ids.dtype}{ids.shape}, gates {gates.shape}, "
      f"probabilities {probabilities.shape}"
    )


def _refuse(values: np.ndarray, is_wrong: np.ndarray, rule: str) -> None:
  where = np.argwhere(is_wrong)
  if where.size:
    first = tuple(int(i) for i in where[0])
    raise ValueError(
      f"{rule}, got {values[first]} at {list(first)} ({len(where)} such)"
    )
