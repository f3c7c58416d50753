"""A family of reward landscapes as pure functions.

It draws one landscape per task; the reward of weights x under the mix
psi is psi . h(x). Letters: V tasks, E experts.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from jax.tree_util import Partial

Params = Any


def _stay(params: Params) -> Params:
  return params


class Family(NamedTuple):
  """A family of reward landscapes as pure functions.

  Attributes:
    init: `init(key) -> params`, a landscape for each task.
    reward: `reward(params, merge_weights [E]) -> [V]`, h(x).
    optimum: `optimum(params, task_mix [V]) -> [E]`, argmax of psi . h(x) to
      1e-4 of reward, for every psi >= 0 that sums to one.
    bounds: `bounds(params) -> (low [], high [])` with low <= h_v(x) <= high
      for every task and all weights; needed by binary rewards only.
    advance: `advance(params) -> params` of the next slot; a landscape that
      stays is the default.
  """

  init: Callable[[jax.Array], Params]
  reward: Callable[[Params, jax.Array], jax.Array]
  optimum: Callable[[Params, jax.Array], jax.Array]
  bounds: Callable[[Params], tuple[jax.Array, jax.Array]] | None = None
  advance: Callable[[Params], Params] = Partial(_stay)


def constant_bounds(
  low: jax.Array, high: jax.Array, params: Params
) -> tuple[jax.Array, jax.Array]:
  """Bounds that no landscape changes: see `Family.bounds`."""
  del params
  return low, high
