"""Which experts of a layer are merged with each other.

Letters: E experts, G groups, D width of what describes an expert.
"""

from typing import NamedTuple

import numpy as np
from scipy.cluster import hierarchy

from tanbr_jax.checks import ranges
from tanbr_jax.checks.ranges import Count, Whole


class Grouping(NamedTuple):
  """A partition of a layer's experts.

  Attributes:
    labels: [E], the group of each expert; groups are in the order of their
      centres.
    centres: [G], an expert of each group, which the others are aligned to.
  """

  labels: np.ndarray
  centres: np.ndarray

  @property
  def num_groups(self) -> int:
    """G."""
    return len(self.centres)


def of_labels(labels: np.ndarray, scores: np.ndarray) -> Grouping:
  """The grouping of any labels [E]; centres have their group's best score."""
  labels, scores = np.asarray(labels), np.asarray(scores, np.float64)
  best = [
    max(np.flatnonzero(labels == label), key=lambda expert: scores[expert])
    for label in np.unique(labels)
  ]
  order = np.argsort(best)
  names = np.unique(labels)[order]
  place = {name: group for group, name in enumerate(names)}
  return Grouping(
    np.array([place[label] for label in labels]), np.array(best)[order]
  )


def hierarchical(points: np.ndarray, num_groups: int) -> np.ndarray:
  """Labels [E] by average linkage of Euclidean distances.

  HC-SMoE (Chen et al., 2024) with the mean outputs of the experts.

  Args:
    points: [E, D].
    num_groups: G, in [1, E].
  """
  if len(points) == num_groups:
    return np.arange(num_groups)
  tree = hierarchy.linkage(np.asarray(points, np.float64), "average")
  return cut(tree, num_groups)


def cut(tree: np.ndarray, num_groups: int) -> np.ndarray:
  """Labels of the points of a SciPy linkage, cut into exactly G groups.

  Equal heights do not matter, at which `fcluster` gives fewer groups, and it
  takes linear time, which `cut_tree` does not.

  Args:
    tree: [n - 1, 4], by rising height, of n points.
    num_groups: G, in [1, n].
  """
  num_points = len(tree) + 1
  num_joins = num_points - num_groups
  # Join i makes node n + i of two nodes before it.
  root = np.arange(num_points + num_joins)
  for join in reversed(range(num_joins)):
    root[tree[join, :2].astype(int)] = root[num_points + join]
  return np.unique(root[:num_points], return_inverse=True)[1]


@ranges.checked
def nearest_centre(
  similarity: np.ndarray,
  scores: np.ndarray,
  num_groups: int,
  *,
  max_group_size: Count | None = None,
) -> Grouping:
  """The G experts of the highest score, and who joins each of them.

  Args:
    similarity: [E, E], larger is more alike.
    scores: [E]; of equal ones the first expert comes first.
    num_groups: G, in [1, E].
    max_group_size: None lets every other expert join the centre that it is
      most similar to (M-SMoE, Li et al., 2024). A number lets the centres, the
      best first, take those most similar to them until they are so many (REAM,
      Jha et al., 2026), so that the last centres stay alone.

  Raises:
    ValueError: if the groups cannot hold all experts.
  """
  num_experts = len(scores)
  order = np.argsort(-np.asarray(scores, np.float64), kind="stable")
  centres = order[:num_groups]
  labels = np.full(num_experts, -1)
  labels[centres] = centres
  if max_group_size is None:
    others = labels < 0
    nearest = np.argmax(similarity[:, centres], axis=1)
    labels[others] = centres[nearest[others]]
  else:
    if num_groups * max_group_size < num_experts:
      raise ValueError(
        f"{num_groups} groups of at most max_group_size={max_group_size} "
        f"cannot hold {num_experts} experts"
      )
    for centre in centres:
      nearest = np.argsort(-similarity[centre], kind="stable")
      free = nearest[labels[nearest] < 0][: max_group_size - 1]
      labels[free] = centre
  order = np.sort(centres)
  return Grouping(np.searchsorted(order, labels), order)


@ranges.checked
def k_means(
  points: np.ndarray, num_groups: int, *, seed: Whole, num_starts: Count = 10
) -> np.ndarray:
  """Labels [E] by k-means of directions, the best of several starts.

  Sub-MoE (Li et al., 2025) with the mean outputs of the experts: their cosines
  decide. Starts are those of k-means++ (Arthur and Vassilvitskii, 2007).

  Args:
    points: [E, D].
    num_groups: G, in [1, E].
    seed: of the starts.
    num_starts: how many.
  """
  points = np.asarray(points, np.float64)
  norms = np.linalg.norm(points, axis=1, keepdims=True)
  points = points / np.maximum(norms, 1e-30)
  draws = np.random.default_rng(seed)
  found = [_k_means(points, num_groups, draws) for _ in range(num_starts)]
  return min(found, key=lambda one: one[0])[1]


def _k_means(
  points: np.ndarray, num_groups: int, draws: np.random.Generator
) -> tuple[float, np.ndarray]:
  """The summed squared distances of one start, and its labels."""
  chosen = [int(draws.integers(len(points)))]
  for _ in range(num_groups - 1):
    far = _squares(points, points[chosen]).min(axis=1)
    # A point that was chosen is not chosen again, whatever is left.
    far = np.where(np.isin(np.arange(len(far)), chosen), 0, far + 1e-12)
    chosen.append(int(draws.choice(len(points), p=far / far.sum())))
  labels, centres = None, points[chosen]
  for _ in range(100):
    squares = _squares(points, centres)
    nearest = squares.argmin(axis=1)
    own = squares[np.arange(len(points)), nearest]
    # A centre without points takes the one that is worst off in a larger group.
    for group in range(num_groups):
      sizes = np.bincount(nearest, minlength=num_groups)
      if not sizes[group]:
        nearest[np.where(sizes[nearest] > 1, own, -1).argmax()] = group
    if labels is not None and np.array_equal(nearest, labels):
      break
    labels = nearest
    centres = np.stack(
      [points[labels == group].mean(axis=0) for group in range(num_groups)]
    )
  return np.square(points - centres[labels]).sum(), labels


def _squares(points: np.ndarray, centres: np.ndarray) -> np.ndarray:
  return np.square(points[:, None] - centres[None]).sum(axis=-1)
