"""The best reward under a mix by brute force, in float64 NumPy."""

import itertools

import numpy as np


def triangle(num_steps):
  """All points of the simplex of three experts with this many steps a side."""
  i, j = np.meshgrid(*[np.arange(num_steps + 1)] * 2, indexing="ij")
  keep = i + j <= num_steps
  i, j = i[keep], j[keep]
  return np.stack([i, j, num_steps - i - j], 1) / num_steps


def largest(reward, mixes, points, width, *, num_refined=48, num_steps=18):
  """The largest psi . h for each of mixes [M, V].

  The best `num_refined` points of the grid are followed on lattices that shrink
  by two. Points are [n, E] on the simplex, or [n, 1] in [0, 1].

  Args:
    reward: reward(points [n, E]) -> [n, V].
    mixes: [M, V].
    points: the grid.
    width: its spacing.
    num_refined: points that are followed.
    num_steps: halvings of the spacing.
  """
  table = reward(points)
  free = max(1, points.shape[1] - 1)
  offsets = np.array(
    list(itertools.product((-1, -0.5, 0, 0.5, 1), repeat=free))
  )
  if points.shape[1] > 1:
    offsets = np.concatenate([offsets, -offsets.sum(1, keepdims=True)], 1)
  found = []
  for mix in np.asarray(mixes, np.float64):
    scores = table @ mix
    best = points[np.argsort(scores)[-num_refined:]]
    top = scores.max()
    for step in range(num_steps):
      around = best[:, None] + width * 0.5**step * offsets
      around = np.clip(around, 0.0, 1.0)
      if points.shape[1] > 1:
        around /= around.sum(-1, keepdims=True)
      values = reward(around.reshape(-1, points.shape[1])) @ mix
      values = values.reshape(around.shape[:2])
      best = around[np.arange(len(best)), values.argmax(1)]
      top = max(top, values.max())
    found.append(top)
  return np.array(found)
