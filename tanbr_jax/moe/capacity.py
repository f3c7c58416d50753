"""Expert capacity: an expert serves so many tokens, the rest are dropped.

Letters: N tokens, E experts, K experts per token.
"""

import math

import jax
import jax.numpy as jnp

from tanbr_jax import kernels
from tanbr_jax.moe.parameters import is_integer
from tanbr_jax.moe.routing import Routing, is_active, keep_pairs

_LARGEST = 2**31 - 1  # places are int32


def expert_capacity(
  num_tokens: int,
  num_experts: int,
  num_selected: int,
  *,
  capacity_factor: float = 1.25,
) -> int:
  """Returns the capacity that holds `capacity_factor` of an even share.

  Fedus et al., Switch Transformers (2021), equation 3, times K; rounded up,
  and at least 1.

  Args:
    num_tokens: N.
    num_experts: E.
    num_selected: K.
    capacity_factor: 1 leaves no room for an uneven load.

  Raises:
    ValueError: if a size is below 1, the factor not finite and above 0, or the
      capacity beyond int32.
  """
  if (
    min(num_tokens, num_experts, num_selected) < 1
    or not 0 < capacity_factor < math.inf
    or num_tokens * num_selected * (capacity_factor / num_experts) > _LARGEST
  ):
    raise ValueError(
      "sizes must be at least 1, capacity_factor finite and above 0 and the "
      f"capacity at most {_LARGEST}, got "
      f"num_tokens={num_tokens}, num_experts={num_experts}, "
      f"num_selected={num_selected}, capacity_factor={capacity_factor}"
    )
  even_share = num_tokens * num_selected / num_experts
  return max(1, math.ceil(even_share * capacity_factor))


def limit_capacity(
  routing: Routing, capacity: int, *, first_choices_first: bool = False
) -> Routing:
  """Skips the pairs that come after the first `capacity` of their expert.

  A dropped pair's gate is lost, as in Switch: its token gets what its other
  experts and the shared ones give. `load_balance_loss` wants the routing from
  before.

  Args:
    routing: of N tokens.
    capacity: pairs that an expert serves, an integer in [1, 2^31 - 1].
    first_choices_first: whether all tokens' first choices come before any
      second choice (GShard, Lepikhin et al., 2021, algorithm 1), or pairs
      come in the order of their tokens. The same for K = 1.

  Raises:
    ValueError: if the capacity is no such integer.
  """
  if not is_integer(capacity) or not 1 <= capacity <= _LARGEST:
    raise ValueError(
      f"capacity must be an integer in [1, {_LARGEST}], got capacity={capacity}"
    )
  ids = routing.expert_ids
  ordered = ids.T if first_choices_first else ids
  place = _place_in_expert(ordered.reshape(-1), routing.probabilities.shape[-1])
  is_kept = (place < capacity).reshape(ordered.shape)
  is_kept = is_kept.T if first_choices_first else is_kept
  return keep_pairs(routing, is_kept & is_active(routing))


def _place_in_expert(expert_ids: jax.Array, num_experts: int) -> jax.Array:
  """[M] int32, how many pairs before each go to its expert, if it has one."""
  permutation = kernels.sort_by_group(expert_ids[:, None], num_experts)
  first = jnp.cumsum(permutation.group_sizes) - permutation.group_sizes
  of_pair = first[jnp.clip(expert_ids, 0, num_experts - 1)]
  return permutation.place[:, 0] - of_pair
