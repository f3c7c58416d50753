"""Prefill as a mixed-integer programme, for HiGHS: the optimum, in its time.

For what the other methods do not prove: one expert a token with a fixed load
cost, many experts. Letters: N tokens, K experts per token, E experts, M pairs.
"""

import numpy as np
from scipy import optimize, sparse

from tanbr_jax.wireless import instance, prefill_priced
from tanbr_jax.wireless.instance import InfeasibleError
from tanbr_jax.wireless.prefill import Choice


def prefill_milp(
  gates: np.ndarray,
  expert_ids: np.ndarray,
  dissimilarity: np.ndarray,
  marginal_energy: np.ndarray,
  *,
  budget: float,
  most_seconds: float = 60.0,
) -> Choice:
  """As `select_prefill`, by `scipy.optimize.milp`.

  HiGHS keeps constraints to 1e-6: a choice above the budget is refused by a
  second run with so much less budget.

  Args:
    gates: as for `select_prefill`, like the other arrays and the budget.
    expert_ids: [N, K].
    dissimilarity: [E, E + 1].
    marginal_energy: [E, N K].
    budget: of a token's deviation.
    most_seconds: after which the best choice so far is taken.

  Returns:
    A `Choice` whose lower bound is HiGHS's.

  Raises:
    InfeasibleError: there is no such choice, or none was found in time.
  """
  one = instance.make(
    gates, expert_ids, dissimilarity, marginal_energy, budget=budget
  )
  try:
    limit = prefill_priced.solve(one).energy
  except InfeasibleError:
    limit = np.inf
  for shrink in (0.0, 2e-6, 1e-4):
    columns, bound = _solve(one, shrink, limit, most_seconds)
    spent = np.take_along_axis(one.deviation, columns[:, :, None], axis=2)
    if (spent.sum(axis=(1, 2)) <= one.budget).all():
      break
  energy = instance.energy_of(one, columns)
  ids = instance.to_ids(columns, one.num_experts)
  return Choice(ids, energy, min(bound, energy), "milp")


def _solve(
  one: instance.Instance, shrink: float, limit: float, most_seconds: float
) -> tuple[np.ndarray, float]:
  num_experts, tokens = one.num_experts, len(one.own)
  # One variable for each pair's option, then one for each load step.
  token, slot, column = np.nonzero(np.isfinite(one.deviation))
  # Loads beyond a known choice's energy are left out: their costs, many orders
  # larger, would drown the others in HiGHS's tolerances.
  is_open = one.cumulative[:, 1:] <= limit * (1 + 1e-9)
  expert, step = np.nonzero(is_open & np.isfinite(one.marginal))
  num_x, num_y = len(token), len(expert)
  pair = token * one.own.shape[1] + slot
  scale = one.budget if one.budget > 0 else 1.0
  spent = one.deviation[token, slot, column] / scale
  is_served = column < num_experts
  # Each pair has one option.
  once = _matrix(np.ones(num_x), pair, np.arange(num_x), one.own.size, num_x)
  within = _matrix(spent, token, np.arange(num_x), tokens, num_x)
  served = np.flatnonzero(is_served)
  load = _matrix(
    np.ones(len(served)), column[served], served, num_experts, num_x
  )
  taken = _matrix(np.ones(num_y), expert, np.arange(num_y), num_experts, num_y)
  # Steps in their order: the second pair only after the first.
  is_later = np.flatnonzero(step > 0)
  order = _matrix(
    np.concatenate([np.ones(len(is_later)), -np.ones(len(is_later))]),
    np.tile(np.arange(len(is_later)), 2),
    np.concatenate([is_later, is_later - 1]),
    len(is_later),
    num_y,
  )
  matrix = sparse.block_array(
    [[once, None], [within, None], [load, -taken], [None, order]]
  )
  free = np.full(len(is_later), -np.inf)
  low = np.concatenate(
    [
      np.ones(one.own.size),
      np.full(tokens, -np.inf),
      np.zeros(num_experts),
      free,
    ]
  )
  limit = one.budget / scale * (1 - shrink)
  high = np.concatenate(
    [np.ones(one.own.size), np.full(tokens, limit), np.zeros(num_experts)]
    + [np.zeros(len(is_later))]
  )
  cost = np.concatenate([np.zeros(num_x), one.marginal[expert, step]])
  unit = cost.max(initial=0.0) or 1.0
  found = optimize.milp(
    cost / unit,
    integrality=np.ones(num_x + num_y),
    bounds=optimize.Bounds(0, 1),
    constraints=optimize.LinearConstraint(matrix, low, high),
    options={"mip_rel_gap": 0.0, "time_limit": most_seconds},
  )
  if found.x is None:
    raise InfeasibleError(
      "infeasible: experts cannot take all pairs that keep "
      f"budget={one.budget:g}"
      f" (finite marginal_energy, the deadline): {found.message}"
    )
  chosen = np.flatnonzero(found.x[:num_x] > 0.5)
  columns = np.empty(one.own.shape, np.int64)
  columns[token[chosen], slot[chosen]] = column[chosen]
  return columns, float(found.mip_dual_bound) * unit


def _matrix(
  values: np.ndarray,
  rows: np.ndarray,
  columns: np.ndarray,
  height: int,
  width: int,
) -> sparse.coo_array:
  return sparse.coo_array((values, (rows, columns)), shape=(height, width))
