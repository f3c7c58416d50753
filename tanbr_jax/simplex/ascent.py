"""Projected gradient ascent on the simplex, from many starts at once.

`Ascent` takes a score of any scale and has steps of given lengths; `climb`
takes a score of its caller's scale, and each start finds its own step size.
Letters: E experts, N candidates, S starts.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np

from tanbr_jax.simplex.projection import project, project_by_sorting
from tanbr_jax.simplex.search import best
from tanbr_jax.simplex.varying import alike

Score = Callable[[jax.Array], jax.Array]
# Steps that a loop on a GPU takes in a turn: all of the default's, since a loop
# waits for the host. More would take longer to compile.
_UNROLL_ON_GPU = 12
ValueAndSlope = Callable[[jax.Array], tuple[jax.Array, jax.Array]]


class Maximum(NamedTuple):
  """The largest value of a score among what was tried.

  Attributes:
    weights: [E] on the simplex.
    value: [] the score there.
    candidate: [] int32, the candidate that the ascent began from.
  """

  weights: jax.Array
  value: jax.Array
  candidate: jax.Array


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Ascent:
  """Projected gradient ascent from the best of many candidates.

  Steps are normalised and shrink geometrically from `step_size` to a hundredth
  of it, so that the score's scale, which changes as rewards are learnt, does
  not matter. The best point seen on any path is returned: the result is never
  below the best candidate. A score that is not finite never wins, and a step to
  where it or its gradient is not finite is not taken. Where no candidate has a
  finite score, the first active one is returned with a value of -inf.

  Attributes:
    num_starts: S, how many of the best candidates to begin from.
    num_steps: gradient steps from each start; 0 returns the best candidate.
    step_size: Euclidean length of the first step.
  """

  num_starts: int = 4
  num_steps: int = 12
  step_size: float = 0.25

  def __post_init__(self):
    if (
      self.num_starts < 1
      or self.num_steps < 0
      or not 0 < self.step_size < math.inf
    ):
      raise ValueError(
        "num_starts must be at least 1, num_steps at least 0 and step_size "
        f"finite and above 0, got {self}"
      )

  def __call__(
    self, score: Score, candidates: chex.Array, active: chex.Array
  ) -> Maximum:
    """Returns the maximum found.

    Args:
      score: pure differentiable function [E] -> [].
      candidates: [N, E] on the simplex; all are begun from if N < S.
      active: [N] bool; the others are begun from only if fewer than S are
        active.
    """
    values = jax.vmap(score)(candidates)
    is_finite = jnp.isfinite(values)
    lowest = jnp.finfo(values.dtype).min
    order = jnp.where(active, jnp.where(is_finite, values, lowest), -jnp.inf)
    most = min(self.num_starts, order.shape[0])
    _, starts = jax.lax.top_k(order, most)
    values = jnp.where(active & is_finite, values, -jnp.inf)
    points, best_values = alike(candidates, values)[starts], values[starts]
    if self.num_steps:
      points, best_values = self._climb(score, points, best_values)
    winner = best(best_values)
    return Maximum(
      points[winner], best_values[winner], starts[winner].astype(jnp.int32)
    )

  def _climb(self, score, points, best_values):
    """Returns the best points [S, E] and values [S] on the paths."""
    value_and_grad = jax.vmap(jax.value_and_grad(score))
    decay = 0.01 ** (1 / max(self.num_steps - 1, 1))
    lengths = self.step_size * decay ** np.arange(self.num_steps)

    def step(carry, length):
      last_points, slopes, best_points, best_values = carry
      directions = slopes - jnp.mean(slopes, axis=-1, keepdims=True)
      norms = jnp.linalg.norm(directions, axis=-1, keepdims=True)
      points = last_points + length * directions / jnp.maximum(norms, 1e-12)
      points = _project_all(points)
      values, gradients = value_and_grad(points)
      is_finite = jnp.isfinite(values) & jnp.all(jnp.isfinite(gradients), -1)
      better = jnp.isfinite(values) & (values > best_values)
      best_points = jnp.where(better[:, None], points, best_points)
      best_values = jnp.where(better, values, best_values)
      # The next step is shorter.
      points = jnp.where(is_finite[:, None], points, last_points)
      gradients = jnp.where(is_finite[:, None], gradients, slopes)
      return (points, gradients, best_points, best_values), None

    _, gradients = value_and_grad(points)
    carry = (points, gradients, points, best_values)
    unroll = _UNROLL_ON_GPU if jax.default_backend() == "gpu" else 1
    lengths = jnp.asarray(lengths, jnp.float32)
    carry, _ = jax.lax.scan(step, carry, lengths, unroll=unroll)
    return carry[2], carry[3]


def _project_all(points: jax.Array) -> jax.Array:
  """Projects points [S, E]; on a GPU a sort is several kernels, E^2 are one."""
  return jax.lax.platform_dependent(
    points, cuda=jax.vmap(project), default=project_by_sorting
  )


class _Climb(NamedTuple):
  points: jax.Array  # [S, E]
  values: jax.Array  # [S]
  slopes: jax.Array  # [S, E]
  step_sizes: jax.Array  # [S]


def climb(
  value_and_slope: ValueAndSlope,
  starts: jax.Array,
  *,
  num_steps: int,
  step_size: float,
) -> tuple[jax.Array, jax.Array]:
  """Climbs from every start with a step size of its own.

  It grows by half after a step that gains; a step that does not, or to where
  the value is not finite, is not taken, and the size falls to .4 of what it
  was.

  Args:
    value_and_slope: points [S, E] -> values [S] and gradients [S, E].
    starts: [S, E] on the simplex.
    num_steps: evaluations after the one of the starts.
    step_size: the first one, a factor of the gradient.

  Returns:
    The ends [S, E] and their values [S], -inf for a start that has no finite
    value and stays where it is.
  """

  def step(_: jax.Array, last: _Climb) -> _Climb:
    points = last.points + last.step_sizes[:, None] * last.slopes
    points = jax.vmap(project)(points)
    values, slopes = value_and_slope(points)
    gains = jnp.isfinite(values) & (values > last.values)
    return _Climb(
      jnp.where(gains[:, None], points, last.points),
      jnp.where(gains, values, last.values),
      jnp.where(gains[:, None], slopes, last.slopes),
      last.step_sizes * jnp.where(gains, 1.5, 0.4),
    )

  values, slopes = value_and_slope(starts)
  values = jnp.where(jnp.isfinite(values), values, -jnp.inf)
  start = _Climb(starts, values, slopes, jnp.full_like(values, step_size))
  end = jax.lax.fori_loop(0, num_steps, step, start)
  return end.points, end.values
