"""Statistics of a routing, by expert and by token.

Letters: N tokens, E experts, K experts per token.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from tanbr_jax.moe.routing import (
  Routing,
  all_tokens,
  dense_gates,
  is_active,
  is_expert,
)
from tanbr_jax.moe.seam import MoeInput, MoeOutput


class ExpertStatistics(NamedTuple):
  """Sums over tokens: those of two parts of a text add up.

  Attributes:
    num_tokens: [] int32, tokens that are not padding.
    num_pairs: [E] int32, the pairs that went to each expert.
    gate_mass: [E] float32, the sum of its gates.
    probability: [E] float32, the sum of its router probabilities.
  """

  num_tokens: jax.Array
  num_pairs: jax.Array
  gate_mass: jax.Array
  probability: jax.Array


class TokenStatistics(NamedTuple):
  """Each token's share of the experts' work.

  Attributes:
    num_active: [N] int32, its pairs that are not skipped.
    gate_mass: [N] float32, the sum of their gates.
    entropy: [N] float32, of its router probabilities, nats in [0, log E].
  """

  num_active: jax.Array
  gate_mass: jax.Array
  entropy: jax.Array


def usage(routing: Routing, token_mask: jax.Array | None = None) -> jax.Array:
  """Returns [E] float32, each expert's share of the N * K pairs.

  Args:
    routing: of N tokens; zeros if there are none.
    token_mask: [N] bool, False for padding, which is left out; None for none.
  """
  found = expert_statistics(routing, token_mask)
  num_pairs = found.num_tokens * routing.expert_ids.shape[1]
  return found.num_pairs.astype(jnp.float32) / jnp.maximum(
    num_pairs.astype(jnp.float32), 1
  )


def expert_statistics(
  routing: Routing, token_mask: jax.Array | None = None
) -> ExpertStatistics:
  """Returns each expert's pairs, gate mass and probability, summed over tokens.

  Args:
    routing: of N tokens.
    token_mask: [N] bool, False for padding, which is left out; None for none.
  """
  token_mask = all_tokens(token_mask, routing.expert_ids.shape[0])
  # Comparisons and a sum: a bincount is a scatter, slow on a GPU, and counts
  # NO_EXPERT as an expert.
  is_pair = is_expert(routing) & token_mask[:, None, None]
  sum_tokens = lambda rows: jnp.sum(  # noqa: E731
    jnp.where(token_mask[:, None], rows.astype(jnp.float32), 0), axis=0
  )
  return ExpertStatistics(
    num_tokens=jnp.sum(token_mask, dtype=jnp.int32),
    num_pairs=jnp.sum(is_pair, axis=(0, 1), dtype=jnp.int32),
    gate_mass=sum_tokens(dense_gates(routing)),
    probability=sum_tokens(routing.probabilities),
  )


def token_statistics(
  routing: Routing, token_mask: jax.Array | None = None
) -> TokenStatistics:
  """Returns each token's active pairs, gate mass and routing entropy.

  Args:
    routing: of N tokens.
    token_mask: [N] bool, False for padding, which gets zeros; None for none.
  """
  token_mask = all_tokens(token_mask, routing.expert_ids.shape[0])
  active = is_active(routing) & token_mask[:, None]
  gates = jnp.where(active, routing.gates.astype(jnp.float32), 0)
  entropy = jnp.sum(jax.scipy.special.entr(routing.probabilities), axis=-1)
  return TokenStatistics(
    num_active=jnp.sum(active, axis=-1, dtype=jnp.int32),
    gate_mass=jnp.sum(gates, axis=-1),
    entropy=jnp.where(token_mask, entropy, 0),
  )


def dropped_share(
  routing: Routing, token_mask: jax.Array | None = None
) -> jax.Array:
  """Returns [] float32, the share of the N * K pairs that are skipped.

  Args:
    routing: of N tokens; zero if there are none.
    token_mask: [N] bool, False for padding, which is left out; None for none.
  """
  token_mask = all_tokens(token_mask, routing.expert_ids.shape[0])
  dropped = ~is_active(routing) & token_mask[:, None]
  num_pairs = jnp.sum(token_mask, dtype=jnp.float32) * dropped.shape[1]
  return jnp.sum(dropped, dtype=jnp.float32) / jnp.maximum(num_pairs, 1)


def observe_experts(
  tree: tuple[()], layer: MoeInput, output: MoeOutput
) -> ExpertStatistics:
  """For `observe=Partial(observe_experts, ())`: `expert_statistics`."""
  del tree, output
  return expert_statistics(layer.routing, layer.token_mask)


def observe_tokens(
  tree: tuple[()], layer: MoeInput, output: MoeOutput
) -> TokenStatistics:
  """For `observe=Partial(observe_tokens, ())`: `token_statistics`."""
  del tree, output
  return token_statistics(layer.routing, layer.token_mask)
