"""Routes: which expert each output of a router leads to.

Where several experts became one, the router that chose between them still has
an output for each. Letters: N tokens, K experts per token, P outputs of the
router, E experts.
"""

import dataclasses

import jax
import jax.numpy as jnp

from tanbr_jax.moe.routing import NO_EXPERT, Routing, dense_gates, is_active


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Routes:
  """The experts that a router's outputs lead to, beside it in the parameters.

  It is static: a node without leaves, which no gradient and no cast changes.

  Attributes:
    expert_of: P experts in [0, E), each of the E at least once, or `NO_EXPERT`
      for an output that leads to none.
  """

  expert_of: tuple[int, ...]

  def __post_init__(self) -> None:
    """Refuses a table that leaves an expert out.

    Raises:
      ValueError: with the table.
    """
    found = sorted(set(self.expert_of) - {NO_EXPERT})
    if not found or found != list(range(len(found))):
      raise ValueError(
        "expert_of must name every expert in [0, E), or "
        f"{NO_EXPERT} for none, got {self.expert_of}"
      )

  @property
  def num_experts(self) -> int:
    """E."""
    return max(self.expert_of) + 1

  def __len__(self) -> int:
    return len(self.expert_of)


def follow_routes(
  expert_of: jax.Array,
  router_logits: jax.Array,
  routing: Routing,
  *,
  num_experts: int,
) -> tuple[jax.Array, Routing]:
  """Turns a choice among a router's outputs into one among the experts.

  A token's pairs with the same expert become its first one, whose gate is the
  sum of theirs; the others are skipped. Probabilities add up, and so does what
  a logit is the logarithm of: an expert's logit is the logsumexp of those of
  its outputs, of which a softmax gives the summed probabilities.

  Args:
    expert_of: [P] int32, the expert of each output or `NO_EXPERT`.
    router_logits: [N, P] float32.
    routing: of the P outputs.
    num_experts: E.

  Returns:
    Logits [N, E], and the routing with probabilities [N, E].
  """
  is_kept = is_active(routing)
  ids = expert_of[jnp.where(is_kept, routing.expert_ids, 0)]
  is_kept = is_kept & (ids != NO_EXPERT)
  # [N, K, K]: which of a token's pairs go to the same expert.
  is_same = (ids[:, :, None] == ids[:, None, :]) & is_kept[:, None, :]
  gates = jnp.sum(jnp.where(is_same, routing.gates[:, None, :], 0), axis=-1)
  place = jnp.arange(ids.shape[1], dtype=jnp.int32)
  first = jnp.argmax(is_same, axis=-1).astype(jnp.int32)
  is_first = is_kept & (first == place[None])
  experts = jnp.arange(num_experts, dtype=expert_of.dtype)
  is_member = expert_of[:, None] == experts[None]  # [P, E]
  outputs = jnp.where(is_member[None], router_logits[:, :, None], -jnp.inf)
  return jax.scipy.special.logsumexp(outputs, axis=1), Routing(
    expert_ids=jnp.where(is_first, ids, NO_EXPERT),
    gates=jnp.where(is_first, gates, jnp.zeros_like(gates)),
    probabilities=routing.probabilities @ is_member.astype(jnp.float32),
  )


def constant_outputs(constants: jax.Array, routing: Routing) -> jax.Array:
  """Returns [N, D], what outputs without an expert add: constants, by gate.

  MoNE (2025): a dropped expert is replaced by its mean output.

  Args:
    constants: [P, D], zeros for outputs that lead to an expert.
    routing: of the P outputs, of N tokens.
  """
  gates = dense_gates(routing).astype(jnp.float32)
  return (gates @ constants.astype(jnp.float32)).astype(constants.dtype)
