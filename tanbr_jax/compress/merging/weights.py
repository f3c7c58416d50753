"""How much each expert of a group counts in its merged expert.

Letters: E experts, G groups, n members of a group.
"""

import numpy as np


def group_weights(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
  """Returns [G, E], each group's scores as shares that sum to 1.

  A group whose scores are all 0, such as experts that no token chose, has equal
  shares.

  Args:
    scores: [E], finite and not negative.
    labels: [E], the group of each expert, in [0, G).

  Raises:
    ValueError: if a score is negative or not finite.
  """
  scores, labels = np.asarray(scores, np.float64), np.asarray(labels)
  wrong = ~np.isfinite(scores) | (scores < 0)
  if np.any(wrong):
    expert = int(np.argmax(wrong))
    raise ValueError(
      "scores that experts are weighted by must be finite and not negative, "
      f"got {scores[expert]} for expert {expert}"
    )
  is_member = labels[None] == np.arange(labels.max() + 1)[:, None]
  shares = np.where(is_member, scores[None], 0)
  total = shares.sum(axis=1, keepdims=True)
  shares = np.where(total > 0, shares, is_member)
  return shares / shares.sum(axis=1, keepdims=True)


def nash_weights(gram: np.ndarray) -> np.ndarray:
  """The Nash bargaining solution: the a > 0 with (G'G) a = 1 / a.

  It maximises the product of the gains G_i'Ga of all players on a sphere
  (Navon et al., 2022). It is the minimum of a'(G'G)a / 2 - sum log a, which is
  convex: Newton's method with halved steps finds it.

  Args:
    gram: [n, n], the inner products G'G of n vectors.

  Returns:
    [n] float64.

  Raises:
    ValueError: if vectors add up to zero with shares that are not negative, or
      are not finite: then there is no solution.
  """
  gram = np.asarray(gram, np.float64)
  scale = np.mean(np.diag(gram))
  if not np.all(np.isfinite(gram)) or scale <= 0:
    raise ValueError(
      "Nash weights need finite vectors that are not all zero, got a mean "
      f"squared norm of {scale}"
    )
  gram = gram / scale
  value = lambda a: a @ gram @ a / 2 - np.log(a).sum()  # noqa: E731
  weights = np.full(len(gram), len(gram) ** -0.5)
  for _ in range(200):
    if weights.max() > 1e6:
      break  # the minimum is at infinity, or too far for float64
    gradient = gram @ weights - 1 / weights
    step = np.linalg.solve(gram + np.diag(weights**-2), gradient)
    decrement = gradient @ step
    if decrement < 1e-20:
      return weights / np.sqrt(scale)
    size = 1.0
    while np.any(weights <= size * step) or (
      value(weights - size * step)
      > value(weights) - size * decrement / 4 + 1e-12
    ):
      size /= 2
    weights = weights - size * step
  raise ValueError(
    "Nash weights do not exist: vectors add up to zero with shares that are "
    f"not negative, got weights as large as {weights.max():.3g}"
  )
