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
  fronts = [
    _front(prices[:, slot], deviation[:, slot], None, budget)
    for slot in range(prices.shape[1])
  ]
  while len(fronts) > 2:
    joined = [
      _front(*_join(*fronts[place : place + 2]), budget)
      for place in range(0, len(fronts) - 1, 2)
    ]
    fronts = joined + fronts[2 * len(joined) :]
  if len(fronts) == 2:
    fronts = [_join(*fronts)]
  price, spent, columns = fronts[0]
  price = np.where(spent <= budget, price, np.inf)
  best = price.argmin(axis=1)
  rows = np.arange(len(price))
  total, columns = price[rows, best], columns[rows, best]
  # Fronts are summed in pairs, a reader's loop slot by slot: what is above the
  # budget by rounding alone is chosen again, just below it.
  parts = np.take_along_axis(deviation, columns[:, :, None], axis=2)[:, :, 0]
  wrong = np.isfinite(total) & (np.cumsum(parts, axis=1)[:, -1] > budget)
  if wrong.any():
    total[wrong], columns[wrong] = cheapest(
      prices[wrong], deviation[wrong], budget=budget * (1 - 1e-12)
    )
  return total, columns


_Front = tuple[np.ndarray, np.ndarray, np.ndarray]


def _front(
  price: np.ndarray,
  spent: np.ndarray,
  columns: np.ndarray | None,
  budget: float,
) -> _Front:
  """The undominated of M options a token, padded with inf in front.

  Ascending in deviation, descending in price. Without columns they are 0 to M.
  """
  price = np.where(spent <= budget, price, np.inf)
  # By deviation, of equal ones the cheaper first.
  order = np.lexsort((price, spent), axis=1)
  price = np.take_along_axis(price, order, axis=1)
  best = np.minimum.accumulate(price, axis=1)
  is_kept = np.isfinite(price)
  is_kept[:, 1:] &= price[:, 1:] < best[:, :-1]
  most = max(1, int(is_kept.sum(axis=1).max(initial=0)))
  # Kept ones to the end, in their order.
  last = np.argsort(is_kept, axis=1, kind="stable")[:, -most:]
  kept = np.take_along_axis(is_kept, last, axis=1)
  price = np.where(kept, np.take_along_axis(price, last, axis=1), np.inf)
  order = np.take_along_axis(order, last, axis=1)
  spent = np.where(kept, np.take_along_axis(spent, order, axis=1), np.inf)
  if columns is None:
    return price, spent, order[:, :, None]
  return price, spent, np.take_along_axis(columns, order[:, :, None], axis=1)


def _join(first: _Front, second: _Front) -> _Front:
  """All sums of two fronts."""
  price = first[0][:, :, None] + second[0][:, None, :]
  spent = first[1][:, :, None] + second[1][:, None, :]
  rows, height, width = price.shape
  columns = np.concatenate(
    [np.repeat(first[2], width, axis=1), np.tile(second[2], (1, height, 1))],
    axis=2,
  )
  return price.reshape(rows, -1), spent.reshape(rows, -1), columns
