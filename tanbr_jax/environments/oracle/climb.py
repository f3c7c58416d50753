"""A search for good weights that needs no derivative of the reward.

Letters: V tasks, E experts, G candidates, M mixes, n windows of a task, S
tokens of context.
"""

import functools

import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from tanbr_jax import models
from tanbr_jax.environments.oracle.merged_reward import task_rewards
from tanbr_jax.simplex.points import dirichlet_half

# The share of the way to a drawn point that a step goes, at first and at last.
_LONGEST, _SHORTEST = 1.0, 0.05


@functools.partial(jax.jit, static_argnames=("model", "rounds"))
def climb(
  key: jax.Array,
  params: models.Params,
  candidates: jax.Array,
  mixes: jax.Array,
  windows: jax.Array,
  reward: Partial,
  *,
  model: models.Model,
  rounds: int,
) -> jax.Array:
  """Moves each mix's best candidate by steps that the reward itself accepts.

  In a round a point is proposed for each mix, a part of the way from its best
  weights towards a point drawn from Dirichlet(1/2); the parts shrink from
  all of it to a twentieth. All proposals are measured on all tasks, and each
  mix takes the best of all where that is better than what it has.

  Args:
    key: random key, consumed.
    params: of the model.
    candidates: [G, E] that the search starts from.
    mixes: [M, V].
    windows: [V, n, S + 1] on which rewards are measured.
    reward: see `environments.rewards`.
    model: a model with experts.
    rounds: R, at least 1; M R points are measured.

  Returns:
    [M, E].
  """

  def measure(weights: jax.Array) -> jax.Array:
    """Values [M, points] of weights [points, E]."""
    found = jax.lax.map(
      lambda x: task_rewards(model, params, windows, x, reward=reward), weights
    )
    values = jnp.matmul(mixes, found.T, precision="float32")
    return jnp.where(jnp.isfinite(values), values, -jnp.inf)

  def take_best(best, values, points):
    weights, value = best
    chosen = jnp.argmax(values, axis=1)
    found = jnp.max(values, axis=1)
    is_better = found > value
    return (
      jnp.where(is_better[:, None], points[chosen], weights),
      jnp.where(is_better, found, value),
    )

  def step(best, inputs):
    key, reach = inputs
    targets = dirichlet_half(key, best[0].shape)
    points = (1 - reach) * best[0] + reach * targets
    return take_best(best, measure(points), points), None

  first = jnp.tile(candidates[:1], (mixes.shape[0], 1))
  lowest = jnp.full(mixes.shape[0], -jnp.inf, jnp.float32)
  best = take_best((first, lowest), measure(candidates), candidates)
  reaches = jnp.geomspace(_LONGEST, _SHORTEST, rounds, dtype=jnp.float32)
  (weights, _), _ = jax.lax.scan(
    step, best, (jax.random.split(key, rounds), reaches)
  )
  return weights
