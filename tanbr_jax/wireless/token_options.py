"""The cheapest option of every token at given prices: an exact knapsack.

A token chooses one column for each of its K slots (a multiple-choice knapsack):
least total price with a total deviation within the budget. Columns that cost
more and deviate more than another are dropped, the slots' fronts are joined two
by two.

Letters: N tokens, K slots, C columns, M members of a front.
"""

import numpy as np


def cheapest(
  prices: np.ndarray, deviation: np.ndarray, *, budget: float
) -> tuple[np.ndarray, np.ndarray]:
  """The cheapest columns of every token.

  Args:
    prices: [N, K, C], at least 0 or inf.
    deviation: [N, K, C], at least 0 or inf.
    budget: of the sum over slots.

  Returns:
    Total prices [N], inf where there is no option, and columns [N, K].
  """
  fronts = []
  for slot in range(prices.shape[1]):
    price, spent, order = _front(prices[:, slot], deviation[:, slot], budget)
    fronts.append((price, spent, order[:, :, None]))
  while len(fronts) > 2:
    joined = []
    for place in range(0, len(fronts) - 1, 2):
      first, second = fronts[place : place + 2]
      price, spent, order = _front(*_sums(first, second), budget)
      joined.append((price, spent, _members(first, second, order)))
    fronts = joined + fronts[2 * len(joined) :]
  rows = np.arange(len(prices))[:, None]
  if len(fronts) == 2:
    price, spent = _sums(*fronts)
    price = np.where(spent <= budget, price, np.inf)
    best = price.argmin(axis=1)[:, None]
    columns = _members(*fronts, best)[:, 0]
  else:
    price, _, columns = fronts[0]
    best = price.argmin(axis=1)[:, None]
    columns = columns[rows, best][:, 0]
  total = price[rows, best][:, 0]
  # Fronts are summed in pairs, a reader's loop slot by slot: what is above the
  # budget by rounding alone is chosen again, just below it.
  parts = np.take_along_axis(deviation, columns[:, :, None], axis=2)[:, :, 0]
  wrong = np.isfinite(total) & (np.cumsum(parts, axis=1)[:, -1] > budget)
  if wrong.any():
    total[wrong], columns[wrong] = cheapest(
      prices[wrong], deviation[wrong], budget=budget * (1 - 1e-12)
    )
  return total, columns


# Prices [N, M], deviations [N, M] and columns [N, M, slots] of a front.
_Front = tuple[np.ndarray, np.ndarray, np.ndarray]


def _front(
  price: np.ndarray, spent: np.ndarray, budget: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """The undominated of M options a token, padded with inf in front.

  Ascending in deviation, descending in price; and their places among the M.
  """
  price = np.where(spent <= budget, price, np.inf)
  # By deviation, of equal ones the cheaper first.
  order = np.lexsort((price, spent), axis=1)
  rows = np.arange(len(price))[:, None]
  price = price[rows, order]
  best = np.minimum.accumulate(price, axis=1)
  is_kept = np.isfinite(price)
  is_kept[:, 1:] &= price[:, 1:] < best[:, :-1]
  most = max(1, int(is_kept.sum(axis=1).max(initial=0)))
  # Kept ones to the end, in their order.
  last = np.argsort(is_kept, axis=1, kind="stable")[:, -most:]
  kept = is_kept[rows, last]
  order = order[rows, last]
  price = np.where(kept, price[rows, last], np.inf)
  return price, np.where(kept, spent[rows, order], np.inf), order


def _sums(first: _Front, second: _Front) -> tuple[np.ndarray, np.ndarray]:
  """Prices and deviations [N, M M'] of all pairs of two fronts' members."""
  rows = len(first[0])
  price = first[0][:, :, None] + second[0][:, None, :]
  spent = first[1][:, :, None] + second[1][:, None, :]
  return price.reshape(rows, -1), spent.reshape(rows, -1)


def _members(first: _Front, second: _Front, places: np.ndarray) -> np.ndarray:
  """The columns of pairs, by their places [N, M] in `_sums`."""
  left, right = np.divmod(places, second[0].shape[1])
  rows = np.arange(len(places))[:, None]
  return np.concatenate([first[2][rows, left], second[2][rows, right]], axis=2)
