"""Maximising a score over candidates, and from the best of them by ascent.

Letters: E experts, N candidates, S starts.
"""

from collections.abc import Callable
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
from optax.projections import projection_simplex

Score = Callable[[jax.Array], jax.Array]


class Maximum(NamedTuple):
  """Where a score is largest among what was tried.

  Attributes:
    weights: [E] on the simplex.
    value: [] the score there.
    candidate: [] int32, the candidate that the ascent began from.
  """

  weights: jax.Array
  value: jax.Array
  candidate: jax.Array


def best_candidate(
  score: Score, candidates: chex.Array, active: chex.Array
) -> Maximum:
  """Returns the candidate with the largest score.

  Args:
    score: pure function [E] -> [].
    candidates: [N, E].
    active: [N] bool; the others are never chosen.
  """
  values = jnp.where(active, jax.vmap(score)(candidates), -jnp.inf)
  best = jnp.argmax(values)
  return Maximum(candidates[best], values[best], best.astype(jnp.int32))


def ascend(
  score: Score,
  candidates: chex.Array,
  active: chex.Array,
  *,
  num_starts: int,
  num_steps: int,
  step_size: chex.Numeric = 0.25,
) -> Maximum:
  """Ascends the score on the simplex from the best candidates.

  Projected gradient ascent with normalised steps whose length falls
  geometrically from `step_size` to a hundredth of it: the score's scale, which
  changes as rewards are learnt, then does not matter. The best point seen on
  any path is returned, so the result is never below the best candidate.

  Args:
    score: pure differentiable function [E] -> [].
    candidates: [N, E] on the simplex.
    active: [N] bool; the others are never begun from.
    num_starts: S, how many of the best candidates to begin from.
    num_steps: gradient steps from each start; 0 returns the best candidate.
    step_size: Euclidean length of the first step.
  """
  if num_steps == 0:
    return best_candidate(score, candidates, active)
  values = jnp.where(active, jax.vmap(score)(candidates), -jnp.inf)
  best_values, starts = jax.lax.top_k(values, num_starts)
  value_and_grad = jax.vmap(jax.value_and_grad(score))
  decay = jnp.float32(0.01) ** (1 / max(num_steps - 1, 1))

  def step(carry, index):
    points, best_points, best_values = carry
    values, gradients = value_and_grad(points)
    better = values > best_values
    best_points = jnp.where(better[:, None], points, best_points)
    best_values = jnp.where(better, values, best_values)
    gradients -= jnp.mean(gradients, axis=-1, keepdims=True)
    norms = jnp.linalg.norm(gradients, axis=-1, keepdims=True)
    length = step_size * decay**index
    points += length * gradients / jnp.maximum(norms, 1e-12)
    return (jax.vmap(projection_simplex)(points), best_points, best_values), None

  points = candidates[starts]
  carry = (points, points, best_values)
  indices = jnp.arange(num_steps, dtype=jnp.float32)
  (points, best_points, best_values), _ = jax.lax.scan(step, carry, indices)
  values = jax.vmap(score)(points)
  better = values > best_values
  best_points = jnp.where(better[:, None], points, best_points)
  best_values = jnp.where(better, values, best_values)
  best = jnp.argmax(best_values)
  return Maximum(
    best_points[best], best_values[best], starts[best].astype(jnp.int32)
  )
