"""The tasks of a slot's requests. Letters: V tasks, B requests."""

import jax
import jax.numpy as jnp


def draw_tasks(key: jax.Array, mix: jax.Array, *, requests: int) -> jax.Array:
  """Draws the task of each request by inverting the mix's running sum.

  Args:
    key: random key, consumed.
    mix: [V] on the simplex.
    requests: B.

  Returns:
    [B] int32 in [0, V).
  """
  edges = jnp.cumsum(mix)
  # Scaled by the last edge, which rounding keeps from being exactly 1.
  draws = jax.random.uniform(key, (requests,), jnp.float32) * edges[-1]
  passed = draws[:, None] >= edges[None, :-1]
  return jnp.sum(passed, axis=1, dtype=jnp.int32)


def count_tasks(tasks: jax.Array, *, num_tasks: int) -> jax.Array:
  """Counts each task in tasks [B], [V] int32."""
  hits = tasks[:, None] == jnp.arange(num_tasks, dtype=jnp.int32)[None, :]
  return jnp.sum(hits, axis=0, dtype=jnp.int32)


def draw_counts(key: jax.Array, mix: jax.Array, *, requests: int) -> jax.Array:
  """Draws Multinomial(requests, mix) counts [V] int32, as `draw_tasks`."""
  tasks = draw_tasks(key, mix, requests=requests)
  return count_tasks(tasks, num_tasks=mix.shape[0])
