"""Prefill beyond small sizes: prices, then improvement, with a proven gap.

Lagrangian of the loads: with a price for every expert the tokens are apart,
each a small knapsack (`token_options`), and the sum of their prices less each
expert's best profit is a lower bound of the energy, convex or not. Marginal
energies spread over many orders of magnitude, so that the logarithms of prices
are moved, towards where what the tokens want and what an expert would best
serve agree. Every such choice is a candidate; the best one is improved, two
slots of a token at a time, at true marginals. [R]

Letters: N tokens, K experts per token, E experts, C = E + 1 columns.
"""

import itertools
from typing import NamedTuple

import numpy as np

from tanbr_jax.wireless import instance, token_options
from tanbr_jax.wireless.instance import InfeasibleError, Instance

# A gap that is not worth another pass.
GOOD_GAP = 0.02


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
    if np.isinf(self.energy):
      return 1.0
    return (self.energy - self.lower_bound) / self.energy


def solve(one: Instance, *, steps: int = 4, sweeps: int = 1) -> Solution:
  """A good choice and its bound.

  Args:
    one: of any size.
    steps: of the prices, before the improvement and again after it, from the
      marginals of the improved choice.
    sweeps: most passes over all tokens that improve; after the first only while
      the gap is above `GOOD_GAP`.

  Raises:
    InfeasibleError: no choice was found that keeps the constraints.
  """
  best = _descend(one, _first_price(one), steps)
  if best.gap > 1e-12 and sweeps:
    best = _improved(one, best)
    other = _descend(one, _prices_of(one, best.columns), steps)
    bound = max(best.lower_bound, other.lower_bound)
    best = min(best, other, key=lambda x: x.energy)
    best = best._replace(lower_bound=min(bound, best.energy))
  for _ in range(sweeps - 1):
    if best.gap <= GOOD_GAP:
      break
    better = _improved(one, best)
    if not better.energy < best.energy * (1 - 1e-9):
      break
    best = better
  if not np.isfinite(best.energy):
    raise InfeasibleError(
      "infeasible as far as searched: experts cannot take all pairs that keep "
      f"budget={one.budget:g} (finite marginal_energy, the deadline)"
    )
  return best


def _improved(one: Instance, solution: Solution) -> Solution:
  columns = _improve(one, solution.columns)
  energy = instance.energy_of(one, columns)
  if not energy < solution.energy:
    return solution
  return Solution(columns, energy, min(solution.lower_bound, energy))


def _descend(one: Instance, price: np.ndarray, steps: int) -> Solution:
  """The best choice and bound of so many steps of the prices [E]."""
  best, energy, bound = None, np.inf, 0.0
  for step in range(steps):
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
      break
    price = _moved(one, price, columns, rate=0.7 / (1 + step / 5))
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


def _first_price(one: Instance) -> np.ndarray:
  """[E] the marginal at which experts would take all pairs between them."""
  finite = np.sort(one.marginal[np.isfinite(one.marginal)])
  if not finite.size:
    return one.marginal[:, 0]
  level = finite[min(one.own.size, finite.size) - 1]
  return np.where(
    np.isfinite(one.marginal[:, 0]), np.maximum(level, 1e-300), np.inf
  )


def _prices_of(one: Instance, columns: np.ndarray) -> np.ndarray:
  """Prices [E] between the last pair's marginal and the next one's."""
  loads = instance.loads_of(columns, one.num_experts)
  rows, last = np.arange(one.num_experts), one.marginal.shape[1] - 1
  # Beyond what an expert can serve its dearest pair tells, doubled.
  finite = np.where(np.isfinite(one.marginal), one.marginal, 0.0)
  dear = 2 * finite.max(axis=1)
  after = one.marginal[rows, np.minimum(loads, last)]
  before = one.marginal[rows, np.minimum(np.maximum(loads - 1, 0), last)]
  after = np.where(np.isfinite(after), after, dear)
  before = np.where(np.isfinite(before), before, dear)
  price = np.sqrt(np.maximum(before, 1e-300)) * np.sqrt(after)
  return np.where(np.isfinite(one.marginal[:, 0]), price, np.inf)


def _moved(
  one: Instance, price: np.ndarray, columns: np.ndarray, *, rate: float
) -> np.ndarray:
  """Prices [E] up where more is wanted than offered, and down."""
  wanted = instance.loads_of(columns, one.num_experts)
  offered = (one.marginal < price[:, None]).sum(axis=1)
  middle = np.maximum((wanted + offered) / 2, 1)
  return price * np.exp(rate * np.clip((wanted - offered) / middle, -1, 1))


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
