"""What a routing does, by expert, by token and by task.

Letters: N tokens, E experts, K experts per token, V tasks.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from tanbr_jax.moe.routing import Routing, dense_gates, is_active, is_expert


class ExpertStatistics(NamedTuple):
  """Means over the tokens.

  Attributes:
    usage: [E] float32, each expert's share of the N * K pairs; what is missing
      from a sum of 1 was skipped.
    gate_mass: [E] float32, the sum of its gates over N.
    probability: [E] float32, its mean router probability.
  """

  usage: jax.Array
  gate_mass: jax.Array
  probability: jax.Array


class TokenStatistics(NamedTuple):
  """What each token got.

  Attributes:
    num_active: [N] int32, its pairs that are not skipped.
    gate_mass: [N] float32, the sum of their gates.
    entropy: [N] float32, of its router probabilities, nats in [0, log E].
  """

  num_active: jax.Array
  gate_mass: jax.Array
  entropy: jax.Array


def usage(routing: Routing) -> jax.Array:
  """Returns [E] float32, each expert's share of the N * K pairs."""
  # Comparisons and a sum: a bincount is a scatter, slow on a GPU, and counts
  # NO_EXPERT as an expert.
  counts = jnp.sum(is_expert(routing), axis=(0, 1), dtype=jnp.int32)
  return counts.astype(jnp.float32) / jnp.float32(routing.expert_ids.size)


def expert_statistics(routing: Routing) -> ExpertStatistics:
  """Returns each expert's usage, gate mass and mean probability."""
  return ExpertStatistics(
    usage=usage(routing),
    gate_mass=jnp.mean(dense_gates(routing).astype(jnp.float32), axis=0),
    probability=jnp.mean(routing.probabilities, axis=0),
  )


def token_statistics(routing: Routing) -> TokenStatistics:
  """Returns each token's active pairs, gate mass and routing entropy."""
  active = is_active(routing)
  gates = jnp.where(active, routing.gates.astype(jnp.float32), 0)
  return TokenStatistics(
    num_active=jnp.sum(active, axis=-1, dtype=jnp.int32),
    gate_mass=jnp.sum(gates, axis=-1),
    entropy=jnp.sum(jax.scipy.special.entr(routing.probabilities), axis=-1),
  )


def dropped_share(routing: Routing) -> jax.Array:
  """Returns [] float32, the share of the N * K pairs that are skipped."""
  return 1 - jnp.mean(is_active(routing).astype(jnp.float32))


def task_usage(
  routing: Routing, task_ids: jax.Array, *, num_tasks: int
) -> jax.Array:
  """Returns [V, E] float32, the mean router probabilities of each task.

  Probabilities and not counts: they are smooth, and tell experts apart that
  are never among a task's first K.

  Args:
    routing: of N tokens.
    task_ids: [N] int32, each token's task; one outside [0, V) is left out.
    num_tasks: V. A task without tokens gets the uniform row.
  """
  num_experts = routing.probabilities.shape[-1]
  total = jax.ops.segment_sum(routing.probabilities, task_ids, num_tasks)
  # A bincount would count a negative id as task 0.
  ones = jnp.ones(task_ids.shape, jnp.float32)
  count = jax.ops.segment_sum(ones, task_ids, num_tasks)
  mean = total / jnp.maximum(count, 1.0)[:, None]
  return jnp.where(count[:, None] > 0, mean, 1.0 / num_experts)
