"""One layer's choice as arrays: what may go where, and at what price.

Columns of a pair's options: experts 0 to E - 1, then E, skipping. Staying with
the router's expert is that expert's column with a deviation of 0.

Letters: N tokens, K experts per token, E experts, M pairs at most.
"""

from typing import NamedTuple

import numpy as np

from tanbr_jax.moe.routing import NO_EXPERT


class InfeasibleError(ValueError):
  """No choice keeps all constraints; the message names the violated one."""


class Instance(NamedTuple):
  """A checked prefill instance.

  Attributes:
    deviation: [N, K, E + 1] float64, each option's share of the token's
      deviation; inf where it is above the budget by itself.
    own: [N, K] int, the column that keeps the router's choice.
    cumulative: [E, M + 1] float64, an expert's energy by its load.
    marginal: [E, M].
    budget: of a token's deviation.
  """

  deviation: np.ndarray
  own: np.ndarray
  cumulative: np.ndarray
  marginal: np.ndarray
  budget: float

  @property
  def num_experts(self) -> int:
    """E."""
    return self.marginal.shape[0]


def make(
  gates: np.ndarray,
  expert_ids: np.ndarray,
  dissimilarity: np.ndarray,
  marginal_energy: np.ndarray,
  *,
  budget: float,
) -> Instance:
  """Checks the arguments of `select_prefill` and makes an `Instance`.

  Raises:
    ValueError: a shape, an id or a value is not allowed; with the values.
  """
  gates = np.asarray(gates, np.float64)
  ids = np.asarray(expert_ids)
  table = np.asarray(dissimilarity, np.float64)
  marginal = np.asarray(marginal_energy, np.float64)
  check_table(gates, ids, table, budget=budget)
  num_experts, num_pairs = table.shape[0], gates.size
  if marginal.ndim != 2 or marginal.shape[0] != num_experts:
    raise ValueError(
      f"marginal_energy must be [E, N K] for E={num_experts}, got "
      f"{list(marginal.shape)}"
    )
  if np.isnan(marginal).any() or (marginal < 0).any():
    wrong = marginal[np.isnan(marginal) | (marginal < 0)].flat[0]
    raise ValueError(f"marginal_energy must be at least 0, got {wrong}")
  # A missing column is a pair that the expert cannot take.
  missing = max(0, num_pairs - marginal.shape[1])
  marginal = np.pad(marginal, ((0, 0), (0, missing)), constant_values=np.inf)
  cumulative = np.zeros((num_experts, marginal.shape[1] + 1))
  np.cumsum(marginal, axis=1, out=cumulative[:, 1:])
  deviation, own = deviations(gates, ids, table)
  budget = finite_budget(deviation, budget)
  deviation = np.where(deviation <= budget, deviation, np.inf)
  return Instance(deviation, own, cumulative, marginal, budget)


def check_table(
  gates: np.ndarray, ids: np.ndarray, table: np.ndarray, *, budget: float
) -> None:
  """Refuses gates, ids, a table or a budget that do not fit each other.

  Raises:
    ValueError: with the values.
  """
  if gates.ndim != 2 or gates.shape != ids.shape or ids.dtype.kind not in "iu":
    raise ValueError(
      "gates and integer expert_ids must be [N, K], got gates "
      f"{list(gates.shape)}, expert_ids {ids.dtype}{list(ids.shape)}"
    )
  if table.ndim != 2 or table.shape[1] != table.shape[0] + 1:
    raise ValueError(
      f"dissimilarity must be [E, E + 1], got {list(table.shape)}"
    )
  if not (table >= 0).all():
    wrong = table[~(table >= 0)].flat[0]
    raise ValueError(f"dissimilarity must be at least 0, got {wrong}")
  if not (np.isfinite(gates).all() and (gates >= 0).all()):
    wrong = gates[~(np.isfinite(gates) & (gates >= 0))].flat[0]
    raise ValueError(f"gates must be finite and >= 0, got {wrong}")
  num_experts = table.shape[0]
  if ids.size and not (ids.min() >= NO_EXPERT and ids.max() < num_experts):
    raise ValueError(
      f"expert_ids must be {NO_EXPERT} or in [0, {num_experts}), the experts "
      f"of the table, got {ids.min()} to {ids.max()}"
    )
  if not budget >= 0:
    raise ValueError(f"budget must be at least 0, got budget={budget}")


def finite_budget(deviation: np.ndarray, budget: float) -> float:
  """The budget, or in the place of inf one that all finite deviations keep."""
  if np.isfinite(budget):
    return float(budget)
  return 2 * float(deviation.sum(where=np.isfinite(deviation)) + 1)


def deviations(
  gates: np.ndarray, ids: np.ndarray, table: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  """Each option's part of its token's deviation, and the options that stay.

  A pair that the router skipped may only stay skipped, and what is infinitely
  dissimilar is not allowed, whatever the gate.

  Returns:
    [N, K, E + 1] float64 and [N, K] int.
  """
  num_experts = table.shape[0]
  is_skipped = ids == NO_EXPERT
  rows = table[np.where(is_skipped, 0, ids)]
  is_open = np.isfinite(rows) & ~is_skipped[:, :, None]
  found = np.where(
    is_open, gates[:, :, None] * np.where(is_open, rows, 0.0), np.inf
  )
  own = np.where(is_skipped, num_experts, ids)
  np.put_along_axis(found, own[:, :, None], 0.0, axis=2)
  return found, own


def to_ids(columns: np.ndarray, num_experts: int) -> np.ndarray:
  """Replacements [N, K] of columns: the last one is `NO_EXPERT`."""
  return np.where(columns == num_experts, NO_EXPERT, columns).astype(np.int32)


def loads_of(columns: np.ndarray, num_experts: int) -> np.ndarray:
  """[E] pairs at each expert, of columns of any shape; -1 and E are skipped."""
  served = columns[(columns >= 0) & (columns < num_experts)]
  return np.bincount(served, minlength=num_experts)


def energy_of(one: Instance, columns: np.ndarray) -> float:
  """The energy of columns [N, K]; inf if an expert gets more than it can."""
  loads = loads_of(columns, one.num_experts)
  return float(one.cumulative[np.arange(one.num_experts), loads].sum())


def is_convex(marginal: np.ndarray) -> bool:
  """Whether every expert's marginal energies ascend, rounding left aside."""
  before, after = marginal[:, :-1], marginal[:, 1:]
  with np.errstate(invalid="ignore"):
    falls = before - after > 1e-12 * np.abs(before)
  return not bool((falls & np.isfinite(after)).any()) and not bool(
    (np.isinf(before) & np.isfinite(after)).any()
  )


def explain(one: Instance, token: int) -> str:
  """One line on why a token can go nowhere."""
  can = np.isfinite(one.marginal[:, 0]) if one.marginal.size else []
  near = np.isfinite(one.deviation[token]).all(axis=0)
  return (
    f"infeasible: token {token} keeps budget={one.budget:g} only at experts "
    f"{np.flatnonzero(near[:-1]).tolist()}, and those that can still serve "
    f"(finite marginal_energy, the deadline) are {np.flatnonzero(can).tolist()}"
  )
