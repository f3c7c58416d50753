"""Prefill beyond small sizes: prices, then improvement, with a proven gap.

Lagrangian of the loads: with a price for every expert the tokens are apart,
each a small knapsack (`token_options`), and the sum of their prices less each
expert's best profit is a lower bound of the energy, convex or not. Prices are
moved towards the marginals at the loads that they cause; every such choice is a
candidate, and the best one is improved token by token at true marginals. [R]

Letters: N tokens, K experts per token, E experts, C = E + 1 columns.
"""

import itertools
from typing import NamedTuple

import numpy as np

from tanbr_jax.wireless import instance, token_options
from tanbr_jax.wireless.instance import InfeasibleError, Instance


class Solution(NamedTuple):
  """A choice with what is known of the best one.

  Attributes:
    columns: [N, K].
    energy: its energy.
    lower_bound: no choice takes less.
  """

  columns: np.ndarray
  energy: float
  lower_bound: float

  @property
  def gap(self) -> float:
    """How much more than the bound it may take, relative to the energy."""
    if self.energy <= self.lower_bound or self.energy == 0:
      return 0.0
    return (self.energy - self.lower_bound) / self.energy


def solve(one: Instance, *, steps: int = 12, sweeps: int = 4) -> Solution:
  """A good choice and its bound.

  Args:
    one: of any size.
    steps: of the prices.
    sweeps: most passes over all tokens that improve.

  Raises:
    InfeasibleError: no choice was found that keeps the constraints.
  """
  best, energy, bound = None, np.inf, 0.0
  spread = None  # loads between those of the choices so far
  bounded = _bounded(one)
  price = one.marginal[:, 0]
  for _ in range(steps):
    value, columns = _at_prices(one, price)
    if not np.isfinite(value):
      # Even alone some token has nowhere to go: the bound proves it.
      wrong = int(np.argmax(~_has_option(one)))
      raise InfeasibleError(instance.explain(one, wrong))
    bound = max(bound, value)
    found = instance.energy_of(one, columns)
    if best is None or found < energy:
      best, energy = columns, found
    if energy <= bound * (1 + 1e-12):
      return Solution(best, energy, bound)
    loads = instance.loads_of(columns, one.num_experts).astype(np.float64)
    spread = loads if spread is None else _between(bounded, spread, loads)
    price = _slope(one, bounded, spread)
  for _ in range(sweeps):
    columns = _improve(one, best)
    found = instance.energy_of(one, columns)
    if not found < energy * (1 - 1e-12):
      break
    best, energy = columns, found
  if not np.isfinite(energy):
    raise InfeasibleError(
      "infeasible as far as searched: experts cannot take all pairs that keep "
      f"budget={one.budget:g} (finite marginal_energy, the deadline)"
    )
  return Solution(best, energy, min(bound, energy))


def _has_option(one: Instance) -> np.ndarray:
  price = np.where(np.isfinite(one.marginal[:, 0]), 0.0, np.inf)
  return np.isfinite(_choose(one, price)[0])


def _choose(one: Instance, price: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  prices = np.append(price, 0.0)
  prices = np.broadcast_to(prices, one.deviation.shape)
  return token_options.cheapest(prices, one.deviation, budget=one.budget)


def _at_prices(one: Instance, price: np.ndarray) -> tuple[float, np.ndarray]:
  """The bound of prices [E], and the tokens' choice."""
  total, columns = _choose(one, price)
  # What an expert would earn at its best load; one without a price serves none.
  loads = np.arange(one.cumulative.shape[1])
  usable = np.isfinite(price)
  earned = np.where(usable, price, 0.0)[:, None] * loads[None]
  profit = np.where(usable[:, None], earned - one.cumulative, 0.0).max(axis=1)
  return float(total.sum() - profit.sum()), columns


def _between(
  bounded: np.ndarray, spread: np.ndarray, loads: np.ndarray
) -> np.ndarray:
  """The best point on the way from one load vector to another.

  A Frank-Wolfe step on the energies between whole loads.
  """
  shares = np.linspace(0, 1, 33)[1:, None]
  points = (1 - shares) * spread + shares * loads
  low = np.minimum(points.astype(np.int64), bounded.shape[1] - 1)
  rows = np.arange(len(bounded))
  before = np.cumsum(bounded, axis=1)[rows, low] - bounded[rows, low]
  energy = (before + (points - low) * bounded[rows, low]).sum(axis=1)
  return points[int(energy.argmin())]


def _bounded(one: Instance) -> np.ndarray:
  """Marginals [E, M], large in the place of inf: of what cannot be served."""
  finite = np.isfinite(one.marginal)
  large = 10 * np.max(one.marginal, where=finite, initial=1e-300)
  return np.where(finite, one.marginal, large)


def _slope(
  one: Instance, bounded: np.ndarray, spread: np.ndarray
) -> np.ndarray:
  """Prices [E] at fractional loads: the marginals, mixed near whole loads."""
  rows, last = np.arange(one.num_experts), bounded.shape[1] - 1
  low = np.minimum(np.maximum(np.floor(spread - 0.5), 0), last).astype(int)
  high = np.minimum(low + 1, last)
  rest = np.clip(spread - 0.5 - low, 0, 1)
  price = (1 - rest) * bounded[rows, low] + rest * bounded[rows, high]
  return np.where(np.isfinite(one.marginal[:, 0]), price, np.inf)


def _improve(one: Instance, columns: np.ndarray) -> np.ndarray:
  """One pass over all pairs of a token's slots, each pair anew.

  At the true marginals that everything else leaves it, exactly.
  """
  columns = columns.copy()
  tokens, slots, width = one.deviation.shape
  loads = instance.loads_of(columns, one.num_experts)
  rows, last = np.arange(one.num_experts), one.marginal.shape[1] - 1
  pairs = list(itertools.combinations(range(slots), 2)) or [(0, 0)]
  price, second = np.zeros(width), np.zeros(width)
  diagonal = np.arange(width)
  for token in range(tokens):
    parts = one.deviation[token]
    for pair in pairs:
      now = columns[token]
      chosen = sorted(set(pair))
      for column in now[chosen].tolist():
        if column < width - 1:
          loads[column] -= 1
      price[:-1] = one.marginal[rows, np.minimum(loads, last)]
      second[:-1] = one.marginal[rows, np.minimum(loads + 1, last)]
      others = sum(
        parts[slot, now[slot]] for slot in range(slots) if slot not in chosen
      )
      if len(chosen) == 1:
        total, spent = price, parts[chosen[0]] + others
      else:
        total = price[:, None] + price
        total[diagonal, diagonal] = price + second
        spent = parts[pair[0]][:, None] + parts[pair[1]] + others
      total = np.where(spent <= one.budget, total, np.inf)
      place = int(total.argmin())
      found = now.copy()
      found[chosen] = np.unravel_index(place, total.shape)
      keeps = parts[np.arange(slots), found].cumsum()[-1] <= one.budget
      if keeps and total.flat[place] < total[tuple(now[chosen])]:
        columns[token] = found
      for column in columns[token, chosen].tolist():
        if column < width - 1:
          loads[column] += 1
  return columns
