"""The choice of experts for one token, as decoding asks for it.

One token's pairs at the same expert share one transmission and one result.
[R] reconstructions: the paper claims optimal policies without formulas.

Letters: K experts per token, E experts, U subsets of experts.
"""

import functools
import itertools
import math
from typing import NamedTuple

import numpy as np
from scipy import optimize

from tanbr_jax.wireless import instance
from tanbr_jax.wireless.instance import InfeasibleError

# Subsets that are enumerated; above it a mixed-integer programme decides.
MOST_SUBSETS = 200_000


class TokenChoice(NamedTuple):
  """A token's replacements.

  Attributes:
    replacement: [K] int32, -1 skips.
    energy_j: of the experts that are used, each counted once.
  """

  replacement: np.ndarray
  energy_j: float


def select_decode(
  gates: np.ndarray,
  expert_ids: np.ndarray,
  dissimilarity: np.ndarray,
  energy_j: np.ndarray,
  *,
  budget: float,
) -> TokenChoice:
  """The replacements of least energy within one token's budget; exact.

  For K = 1 the cheapest expert that is near enough, in closed form. For K > 1
  the cheapest set of experts: a set allows each slot its nearest member.

  Args:
    gates: [K] at least 0.
    expert_ids: [K]; -1 is skipped already.
    dissimilarity: [E, E + 1], the last column for skipping.
    energy_j: [E] of one state at each expert; inf = cannot.
    budget: of the token's deviation, at least 0.

  Returns:
    A `TokenChoice`.

  Raises:
    ValueError: an argument is not allowed.
    InfeasibleError: no set of experts keeps the budget.
  """
  gates = np.asarray(gates, np.float64)[None]
  ids = np.asarray(expert_ids)[None]
  table = np.asarray(dissimilarity, np.float64)
  energy = np.asarray(energy_j, np.float64)
  instance.check_table(gates, ids, table, budget=budget)
  num_experts = table.shape[0]
  if energy.shape != (num_experts,) or not (energy >= 0).all():
    raise ValueError(
      f"energy_j must be [E] = [{num_experts}] and at least 0, got "
      f"{list(energy.shape)}: {energy.tolist()}"
    )
  deviation = instance.deviations(gates, ids, table)[0][0]
  budget = instance.finite_budget(deviation, budget)
  if deviation.shape[0] == 1:
    return _one_slot(deviation[0], energy, budget)
  can = np.flatnonzero(np.isfinite(energy))
  slots = deviation.shape[0]
  num = sum(math.comb(len(can), size) for size in range(slots + 1))
  if num <= MOST_SUBSETS:
    columns = _by_subsets(deviation, energy, can, budget)
  else:
    columns = _by_milp(deviation, energy, can, budget)
  if columns is None:
    raise InfeasibleError(_explain(deviation, energy, budget))
  used = np.unique(columns[columns < num_experts])
  ids = instance.to_ids(columns, num_experts)
  return TokenChoice(ids, float(energy[used].sum()))


def _one_slot(
  deviation: np.ndarray, energy: np.ndarray, budget: float
) -> TokenChoice:
  cost = np.where(deviation <= budget, np.append(energy, 0.0), np.inf)
  # Of equal costs the one that deviates least.
  column = int(np.lexsort((deviation, cost))[0])
  if not np.isfinite(cost[column]):
    raise InfeasibleError(_explain(deviation[None], energy, budget))
  ids = instance.to_ids(np.array([column]), len(energy))
  return TokenChoice(ids, float(cost[column]))


def _explain(deviation: np.ndarray, energy: np.ndarray, budget: float) -> str:
  near = [np.flatnonzero(row[:-1] <= budget).tolist() for row in deviation]
  return (
    f"infeasible: within budget={budget:g} the slots may go to experts {near}, "
    "and those that can serve (finite energy_j, the deadline) are "
    f"{np.flatnonzero(np.isfinite(energy)).tolist()}"
  )


def _by_subsets(
  deviation: np.ndarray, energy: np.ndarray, can: np.ndarray, budget: float
) -> np.ndarray | None:
  slots = deviation.shape[0]
  skip = deviation.shape[1] - 1
  # A member that is not there is the column of skipping, which all have.
  members = np.append(can, skip)[_subsets(len(can), slots)]
  cost = np.append(energy, 0.0)[members].sum(axis=1)
  total = np.zeros(len(members))
  for row in deviation:
    total = total + np.minimum(row[members].min(axis=1), row[skip])
  total = np.where(total <= budget, total, np.inf)
  cost = np.where(np.isfinite(total), cost, np.inf)
  best = int(np.lexsort((total, cost))[0])
  if not np.isfinite(cost[best]):
    return None
  columns = np.append(members[best], skip)
  return columns[deviation[:, columns].argmin(axis=1)]


@functools.lru_cache(maxsize=8)
def _subsets(count: int, most: int) -> np.ndarray:
  """All sets of at most `most` of `count` things, [U, most]; `count` = none."""
  rows = []
  for size in range(min(most, count) + 1):
    found = np.array(list(itertools.combinations(range(count), size)), np.int64)
    found = found.reshape(math.comb(count, size), size)
    rows.append(
      np.pad(found, ((0, 0), (0, most - size)), constant_values=count)
    )
  return np.concatenate(rows)


def _by_milp(
  deviation: np.ndarray, energy: np.ndarray, can: np.ndarray, budget: float
) -> np.ndarray | None:
  """A choice x [K, C] with x <= y of the experts used, for HiGHS."""
  slots, skip = deviation.shape[0], deviation.shape[1] - 1
  columns = np.append(can, skip)
  width, num_x = len(columns), slots * len(columns)
  parts = deviation[:, columns]
  allowed = np.isfinite(parts) & (parts <= budget)
  scale = budget if budget > 0 else 1.0
  cost = np.concatenate([np.zeros(num_x), energy[can]])
  unit = cost.max(initial=0.0) or 1.0
  once = np.zeros((slots, num_x + len(can)))
  for slot in range(slots):
    once[slot, slot * width : (slot + 1) * width] = 1
  spent = np.zeros((1, num_x + len(can)))
  spent[0, :num_x] = np.where(allowed, parts, 0).reshape(-1) / scale
  used = np.zeros((slots * len(can), num_x + len(can)))
  for slot in range(slots):
    for place in range(len(can)):
      row = slot * len(can) + place
      used[row, slot * width + place], used[row, num_x + place] = 1, -1
  high = np.concatenate([allowed.reshape(-1), np.ones(len(can))])
  for limit in (budget / scale, budget / scale - 2e-6):
    found = optimize.milp(
      cost / unit,
      integrality=np.ones(num_x + len(can)),
      bounds=optimize.Bounds(0, high),
      constraints=[
        optimize.LinearConstraint(once, 1, 1),
        optimize.LinearConstraint(spent, -np.inf, limit),
        optimize.LinearConstraint(used, -np.inf, 0),
      ],
      options={"mip_rel_gap": 0.0},
    )
    if found.x is None:
      return None
    chosen = found.x[:num_x].reshape(slots, width).argmax(axis=1)
    if parts[np.arange(slots), chosen].sum() <= budget:
      return columns[chosen]
  return None
