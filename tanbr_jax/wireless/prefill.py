"""The choice of experts for a prefill, whose tokens share the experts' loads.

Which method runs, and what it guarantees:

- K = 1 and ascending marginals: `prefill_paths`, exact;
- else, where the load vectors are few: `prefill_loads`, exact, whatever the
  marginals are (a fixed load cost makes them descend once);
- else: `prefill_priced`, with a lower bound; `prefill_milp` proves the optimum
  of middling sizes in its own time.
"""

from typing import NamedTuple

import numpy as np

from tanbr_jax.wireless import (
  instance,
  prefill_loads,
  prefill_paths,
  prefill_priced,
)


class Choice(NamedTuple):
  """A layer's replacements, and how good they are.

  Attributes:
    replacement: [N, K] int32, `NO_EXPERT` = -1 skips.
    energy_j: of the layer.
    lower_bound_j: no choice within the constraints takes less.
    method: "paths", "loads" or "priced"; the first two are exact.
  """

  replacement: np.ndarray
  energy_j: float
  lower_bound_j: float
  method: str


def select_prefill(
  gates: np.ndarray,
  expert_ids: np.ndarray,
  dissimilarity: np.ndarray,
  marginal_energy: np.ndarray,
  *,
  budget: float,
) -> np.ndarray:
  """The replacements of least energy that keep every token's budget.

  A token's deviation is the sum over its pairs of gate times
  `dissimilarity[id, replacement]`, 0 where the id stays and the last column
  where it is skipped. Of two choices that take the same energy any may come.

  Args:
    gates: [N, K] at least 0.
    expert_ids: [N, K] the router's experts; -1 is skipped already and stays so.
    dissimilarity: [E, E + 1], the last column for skipping.
    marginal_energy: [E, N K], what the n-th pair at an expert costs, at least
      0; inf = cannot, as is a missing column. Two pairs of a token at one
      expert are two pairs.
    budget: of a token's deviation, at least 0.

  Returns:
    [N, K] int32 in [-1, E). Exact for K = 1 on ascending marginals and for
    small K > 1; see the module for others.

  Raises:
    ValueError: an argument is not allowed.
    InfeasibleError: (a ValueError) there is no such choice; names what is
      violated.
  """
  return solve_prefill(
    gates, expert_ids, dissimilarity, marginal_energy, budget=budget
  ).replacement


def solve_prefill(
  gates: np.ndarray,
  expert_ids: np.ndarray,
  dissimilarity: np.ndarray,
  marginal_energy: np.ndarray,
  *,
  budget: float,
) -> Choice:
  """`select_prefill` with the energy, a lower bound and the method's name."""
  one = instance.make(
    gates, expert_ids, dissimilarity, marginal_energy, budget=budget
  )
  if not one.own.size:
    return Choice(instance.to_ids(one.own, one.num_experts), 0.0, 0.0, "paths")
  if one.own.shape[1] == 1 and instance.is_convex(one.marginal):
    columns, method = prefill_paths.solve(one), "paths"
  elif prefill_loads.fits(one):
    columns, method = prefill_loads.solve(one), "loads"
  else:
    found = prefill_priced.solve(one)
    ids = instance.to_ids(found.columns, one.num_experts)
    return Choice(ids, found.energy, found.lower_bound, "priced")
  energy = instance.energy_of(one, columns)
  ids = instance.to_ids(columns, one.num_experts)
  return Choice(ids, energy, energy, method)
