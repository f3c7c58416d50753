"""Small functions on token-expert pairs that the reroutes share.

Letters: N tokens, E experts, K experts per token, L layers with experts.
"""

from typing import Any

import jax
import jax.numpy as jnp

from tanbr_jax import moe
from tanbr_jax.checks.ranges import Range
from tanbr_jax.models import Model
from tanbr_jax.moe import Routing
from tanbr_jax.moe.scores import pick


def of_pairs(values: jax.Array, routing: Routing) -> jax.Array:
  """Returns [N, K], values [N, E] at each pair's expert.

  A skipped pair gets the value of some expert.
  """
  last = values.shape[-1] - 1
  return pick(values, jnp.clip(routing.expert_ids, 0, last))


def keep(routing: Routing, is_kept: jax.Array, rescales: jax.Array) -> Routing:
  """Skips pairs; the sum of a token's gates stays where `rescales`.

  Args:
    routing: of N tokens.
    is_kept: [N, K] bool.
    rescales: [] bool, see `rescales_gates`.
  """
  kept = moe.keep_pairs(routing, is_kept)
  before = jnp.sum(routing.gates, axis=-1, keepdims=True)
  after = jnp.sum(kept.gates, axis=-1, keepdims=True)
  after = jnp.where(after == 0, jnp.ones_like(after), after)
  # Times exactly one where nothing is skipped.
  is_less = jnp.any(~is_kept, axis=-1, keepdims=True) & rescales
  scale = jnp.where(is_less, before / after, jnp.ones_like(after))
  return kept._replace(gates=kept.gates * scale)


def rescales_gates(model: Model) -> bool:
  """Whether the model scales a token's gates to a fixed sum.

  A smaller K then gives the experts that are left larger gates.
  """
  router = getattr(model.config, "router", None)
  if router is None:  # a byte model
    return True
  is_rescaled = router.scores in ("softmax", "sigmoid") and router.renormalise
  return is_rescaled or router.scores == "softmax_after"


def num_layers(model: Model) -> int:
  """L.

  Raises:
    ValueError: if the model has no experts.
  """
  if model.config.num_experts is None:
    raise ValueError("the model must have experts, got num_experts=None")
  return len(model.config.moe_layers)


def by_layer(model: Model, value: Any, dtype: Any) -> jax.Array:
  """Returns [L] of a number, or of one for each layer.

  Raises:
    ValueError: if it is neither.
  """
  count = num_layers(model)
  array = jnp.asarray(value, dtype)
  if array.shape not in ((), (count,)):
    raise ValueError(
      f"needs one number or L={count} of them, got shape {array.shape}"
    )
  return jnp.broadcast_to(array, (count,))


def check_num_selected(model: Model, num_selected: Any) -> None:
  """Refuses a number of experts per token outside of [1, K]."""
  most = model.config.num_selected
  Range(1, most, "[]").check("num_selected", num_selected, is_integer=True)
