import itertools

import numpy as np
import pytest

from tanbr_jax.compress.merging import grouping


def partition(labels):
  return {frozenset(np.flatnonzero(labels == one)) for one in set(labels)}


@pytest.mark.parametrize("num_groups", range(1, 9))
def test_hierarchical_labels_are_those_of_scikit_learn(num_groups):
  cluster = pytest.importorskip("sklearn.cluster")
  points = np.random.default_rng(0).normal(size=(8, 5))
  theirs = cluster.AgglomerativeClustering(
    n_clusters=num_groups, linkage="average"
  ).fit_predict(points)
  ours = grouping.hierarchical(points, num_groups)
  assert partition(ours) == partition(theirs)


def test_equal_points_still_make_as_many_groups():
  # Equal heights, at which a cut by distance gives fewer.
  labels = grouping.hierarchical(np.ones((6, 2)), 4)
  assert len(set(labels)) == 4


def test_groups_are_in_the_order_of_their_best_expert():
  found = grouping.of_labels(np.array([7, 3, 7, 3, 5]), [1, 9, 4, 2, 0])
  # 7 has expert 2, 3 has expert 1, 5 has expert 4.
  np.testing.assert_array_equal(found.centres, [1, 2, 4])
  np.testing.assert_array_equal(found.labels, [1, 0, 1, 0, 2])
  assert found.num_groups == 3


# By rows; 1 and 4 are the best by score.
SIMILARITY = np.array(
  [
    [9, 1, 0, 0, 3],
    [1, 9, 5, 4, 0],
    [0, 5, 9, 0, 6],
    [0, 4, 0, 9, 2],
    [3, 0, 6, 2, 9],
  ]
)
SCORES = np.array([1.0, 5, 1, 0, 4])


def test_everybody_joins_the_nearest_centre():
  found = grouping.nearest_centre(SIMILARITY, SCORES, 2)
  np.testing.assert_array_equal(found.centres, [1, 4])
  np.testing.assert_array_equal(found.labels, [1, 0, 1, 0, 1])


def test_the_best_centre_takes_first_up_to_the_cap():
  # Expert 1 takes 2, which is nearer to 4, and 3; 0 is left for 4.
  found = grouping.nearest_centre(SIMILARITY, SCORES, 2, max_group_size=3)
  np.testing.assert_array_equal(found.labels, [1, 0, 0, 0, 1])
  alone = grouping.nearest_centre(SIMILARITY, SCORES, 2, max_group_size=5)
  np.testing.assert_array_equal(alone.labels, [0, 0, 0, 0, 1])
  with pytest.raises(ValueError, match="max_group_size=2 cannot hold 5"):
    grouping.nearest_centre(SIMILARITY, SCORES, 2, max_group_size=2)


@pytest.mark.parametrize("num_groups", [1, 2, 3, 6])
def test_k_means_finds_the_best_of_all_partitions(num_groups):
  points = np.random.default_rng(1).normal(size=(6, 3))
  points *= np.arange(1, 7)[:, None]  # lengths do not matter
  unit = points / np.linalg.norm(points, axis=1, keepdims=True)

  def cost(labels):
    groups = [unit[np.array(labels) == one] for one in set(labels)]
    return sum(np.square(own - own.mean(axis=0)).sum() for own in groups)

  best = min(
    cost(labels)
    for labels in itertools.product(range(num_groups), repeat=6)
    if len(set(labels)) == num_groups
  )
  found = grouping.k_means(points, num_groups, seed=0)
  assert set(found) == set(range(num_groups))
  np.testing.assert_allclose(cost(tuple(found)), best, atol=1e-12)


def test_k_means_of_equal_points_leaves_no_group_empty():
  found = grouping.k_means(np.ones((5, 2)), 3, seed=0)
  assert set(found) == {0, 1, 2}
