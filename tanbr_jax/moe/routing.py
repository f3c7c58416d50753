"""Which experts serve which token, and the losses that keep a router useful.

Letters: N tokens, E experts, K experts per token, V tasks.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp


class Routing(NamedTuple):
  """What a router decided for N tokens.

  Attributes:
    expert_ids: [N, K] int32, the chosen experts, the likeliest first.
    gates: [N, K], each chosen expert's share in the token's output.
    probabilities: [N, E] float32, softmax of the router's logits.
  """

  expert_ids: jax.Array
  gates: jax.Array
  probabilities: jax.Array


def top_k(
  router_logits: jax.Array, num_selected: int, *, renormalise: bool = True
) -> Routing:
  """Chooses each token's `num_selected` likeliest experts; none is dropped.

  Args:
    router_logits: [N, E] floating.
    num_selected: K, in [1, E].
    renormalise: whether a token's gates are scaled to sum to one (Mixtral),
      or stay the probabilities (Switch).

  Returns:
    A `Routing` with float32 gates.

  Raises:
    ValueError: if K is not in [1, E].
  """
  num_experts = router_logits.shape[-1]
  if not 1 <= num_selected <= num_experts:
    raise ValueError(
      "num_selected must be in [1, num_experts], got "
      f"num_selected={num_selected}, num_experts={num_experts}"
    )
  probabilities = jax.nn.softmax(router_logits.astype(jnp.float32), axis=-1)
  gates, expert_ids = jax.lax.top_k(probabilities, num_selected)
  if renormalise:
    gates = gates / jnp.sum(gates, axis=-1, keepdims=True)
  return Routing(expert_ids, gates, probabilities)


def usage(routing: Routing) -> jax.Array:
  """Returns [E] float32, each expert's share of the N * K choices."""
  num_experts = routing.probabilities.shape[-1]
  counts = jnp.bincount(routing.expert_ids.reshape(-1), length=num_experts)
  return counts.astype(jnp.float32) / jnp.float32(routing.expert_ids.size)


def task_usage(
  routing: Routing, task_ids: jax.Array, *, num_tasks: int
) -> jax.Array:
  """Returns [V, E] float32, the mean router probabilities of each task.

  Probabilities and not counts: they are smooth, and tell experts apart that
  are never among a task's first K.

  Args:
    routing: of N tokens.
    task_ids: [N] int32, each token's task.
    num_tasks: V. A task without tokens gets the uniform row.
  """
  num_experts = routing.probabilities.shape[-1]
  total = jax.ops.segment_sum(routing.probabilities, task_ids, num_tasks)
  count = jnp.bincount(task_ids, length=num_tasks).astype(jnp.float32)
  mean = total / jnp.maximum(count, 1.0)[:, None]
  return jnp.where(count[:, None] > 0, mean, 1.0 / num_experts)


def load_balance_loss(routing: Routing) -> jax.Array:
  """E times sum_e (share of choices)_e (mean probability)_e; 1 if balanced.

  Fedus et al., Switch Transformers (2021), equation 4, over all K choices.
  The shares carry no gradient; the probabilities do.
  """
  mean_probability = jnp.mean(routing.probabilities, axis=0)
  return jnp.vdot(usage(routing), mean_probability) * jnp.float32(
    mean_probability.size
  )


def z_loss(router_logits: jax.Array) -> jax.Array:
  """Mean squared log-partition of [N, E] logits; keeps them small.

  Zoph et al., ST-MoE (2022), equation 5.
  """
  logits = router_logits.astype(jnp.float32)
  return jnp.mean(jnp.square(jax.nn.logsumexp(logits, axis=-1)))
