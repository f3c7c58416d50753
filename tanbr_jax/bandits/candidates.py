"""Candidate merge weights: what a bandit scores in a round.

Letters: E experts, N candidates.
"""

import chex
import jax
import jax.numpy as jnp


def dirichlet_half(key: chex.PRNGKey, shape: tuple[int, int]) -> jax.Array:
  """Returns [N, E] draws of Dirichlet(1/2): squared normals, normalised.

  `jax.random.dirichlet` draws by rejection, which is slow inside a scan.

  Args:
    key: random key, consumed.
    shape: (N, E).
  """
  squares = jax.random.normal(key, shape) ** 2
  return squares / jnp.sum(squares, axis=-1, keepdims=True)


def ascent_starts(
  key: chex.PRNGKey, previous: chex.Array, num_fresh: int
) -> jax.Array:
  """Returns where an ascent of the score may begin, [E + 2 + num_fresh, E].

  The vertices, the centre, the weights played last and fresh Dirichlet(1/2)
  draws, which favour few experts as good merges do [R].

  Args:
    key: random key, consumed.
    previous: [E], the weights played last.
    num_fresh: how many are drawn anew.
  """
  num_experts = previous.shape[0]
  centre = jnp.full((1, num_experts), 1 / num_experts, jnp.float32)
  fresh = dirichlet_half(key, (num_fresh, num_experts))
  return jnp.concatenate(
    [jnp.eye(num_experts), centre, previous[None, :], fresh]
  )
