"""Scores of experts: those in a token's best groups, and those of its choice.

Letters: N tokens, E experts, K experts per token, J groups of experts.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from tanbr_jax import kernels
from tanbr_jax.checks.names import check_choice
from tanbr_jax.kernels import selection


class GroupLimit(NamedTuple):
  """Selection from a few groups of neighbouring experts only.

  Attributes:
    num_groups: J, a divisor of E; each group has E / J experts.
    num_selected: how many groups a token may choose from.
    score: what a group is worth: "max", its best expert (DeepSeek-V2, 2024,
      section 2.2.2), or "top2_sum", the sum of its best two (DeepSeek-V3, 2024,
      section 2.1.2 and its code).
  """

  num_groups: int
  num_selected: int
  score: str = "max"


def limit_groups(scores: jax.Array, limit: GroupLimit) -> jax.Array:
  """Returns [N, E] scores with -inf outside of each token's best groups.

  Args:
    scores: [N, E] float32; -inf is closed to the token.
    limit: how many groups there are and may be chosen.

  Raises:
    ValueError: if the groups do not divide E, their number is impossible, or
      the score is unknown or needs larger groups.
  """
  _check_limit(limit, scores.shape[-1])
  groups = scores.reshape(scores.shape[0], limit.num_groups, -1)
  worth = jnp.max(groups, axis=-1)
  if limit.score == "top2_sum":
    best_two = pick(groups, kernels.largest_ids(groups, 2))
    # A group with one open expert is worth that one, with none -inf.
    is_open = best_two != -jnp.inf
    worth = jnp.sum(jnp.where(is_open, best_two, 0), axis=-1)
    worth = jnp.where(is_open[..., 0], worth, -jnp.inf)
  is_chosen = selection.ranks(lax.stop_gradient(worth)) < limit.num_selected
  return jnp.where(is_chosen[..., None], groups, -jnp.inf).reshape(scores.shape)


def pick(values: jax.Array, ids: jax.Array) -> jax.Array:
  """Returns [..., K], the values [..., E] at the ids [..., K], all in range."""
  return lax.platform_dependent(values, ids, cpu=_pick_cpu, default=pick_dense)


def pick_dense(values: jax.Array, ids: jax.Array) -> jax.Array:
  """`pick` as a masked sum, whose gradient is a masked sum and no scatter."""
  experts = jnp.arange(values.shape[-1], dtype=ids.dtype)
  is_it = ids[..., None] == selection.with_rank(experts, ids.ndim + 1)
  return jnp.sum(jnp.where(is_it, values[..., None, :], 0), axis=-1)


def _pick_cpu(values: jax.Array, ids: jax.Array) -> jax.Array:
  return jnp.take_along_axis(values, ids, axis=-1)


def _check_limit(limit: GroupLimit, num_experts: int) -> None:
  num_groups, num_selected, score = limit
  if num_groups < 1 or num_experts % num_groups:
    raise ValueError(
      "num_groups must divide the number of experts, got "
      f"num_groups={num_groups}, num_experts={num_experts}"
    )
  if not 1 <= num_selected <= num_groups:
    raise ValueError(
      "num_selected must be in [1, num_groups], got "
      f"num_selected={num_selected}, num_groups={num_groups}"
    )
  smallest = {"max": 1, "top2_sum": 2}
  check_choice("score", score, smallest)
  if num_experts // num_groups < smallest[score]:
    raise ValueError(
      f"score={score!r} needs groups of at least {smallest[score]} experts, "
      f"got num_groups={num_groups}, num_experts={num_experts}"
    )
