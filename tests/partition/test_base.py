"""What holds for every partition: refusals, transformations, bad input."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tanbr_jax.partition import Tree, box, simplex


@pytest.fixture(scope="module", params=[simplex, box], ids=["simplex", "box"])
def partition(request):
  return request.param(num_experts=3, capacity=6)


@pytest.fixture(scope="module")
def root(partition):
  return jax.jit(partition.init)()


@pytest.fixture(scope="module")
def split(partition):
  return jax.jit(partition.split)


def assert_equal(left, right):
  jax.tree.map(np.testing.assert_array_equal, left, right)


def test_root(partition, root):
  tree = root
  assert int(tree.num_nodes) == 1
  assert not tree.full
  np.testing.assert_array_equal(tree.is_leaf, [True] + [False] * 5)
  point = jnp.array([0.2, 0.2, 0.6])
  assert int(jax.jit(partition.locate)(tree, point)) == Tree.ROOT
  assert float(jax.jit(partition.volume)(tree, Tree.ROOT)) == 1
  # Padding is on the simplex too.
  np.testing.assert_allclose(tree.representatives, 1 / 3, atol=1e-7)


def test_split_of_no_leaf_is_a_no_op(root, split):
  tree = split(root, 0)
  assert int(tree.num_nodes) == 3
  # An inner node, free slots, and indices out of range on both sides.
  for node in (0, 3, 5, 6, 100, -1, -6):
    assert_equal(split(tree, node), tree)


def test_split_that_is_not_enabled_is_a_no_op(root, split):
  tree = split(root, 0, jnp.asarray(True))
  assert_equal(split(tree, 1, jnp.asarray(False)), tree)
  full = split(split(tree, 1), 2)
  assert int(full.num_nodes) == 5
  assert_equal(split(full, 3, jnp.asarray(False)), full)


def test_full_tree_says_so_and_stays(root, split):
  tree = root
  for node in (0, 1, 3):
    assert not tree.full
    tree = split(tree, node)
  # One slot of six is left: the third split was refused, and nothing else
  # changed.
  assert int(tree.num_nodes) == 5
  assert bool(tree.full)
  assert bool(tree.is_leaf[3])
  assert_equal(split(tree, 4), tree)


@pytest.mark.parametrize("make", [simplex, box])
def test_capacity_of_the_root_alone(make):
  partition = make(num_experts=2, capacity=1)
  tree = jax.jit(lambda: partition.split(partition.init(), 0))()
  assert bool(tree.full)
  assert bool(tree.is_leaf[0])


def test_vmap_equals_single_trees(partition, root, split):
  singles = [split(split(root, 0), 1), split(root, 0), root]
  trees = jax.tree.map(lambda leaf: np.stack([leaf] * 3), root)
  many = jax.jit(jax.vmap(partition.split))
  trees = many(trees, np.array([0, 0, 0]), np.array([True, True, False]))
  trees = many(trees, np.array([1, 2, 0]), np.array([True, False, False]))
  points = np.array([[0.1, 0.2, 0.7], [0.7, 0.1, 0.2], [0.2, 0.5, 0.3]], "f")
  located = jax.jit(jax.vmap(partition.locate))(trees, points)
  locate = jax.jit(partition.locate)
  trees = jax.device_get(trees)
  for index, (single, point) in enumerate(zip(singles, points, strict=True)):
    assert_equal(jax.tree.map(lambda leaf, i=index: leaf[i], trees), single)
    assert int(located[index]) == int(locate(single, point))


def test_equal_arguments_do_not_compile_again():
  traces = []

  @jax.jit
  def start(partition):
    traces.append(1)
    return partition.split(partition.init(), 0)

  for make in (simplex, box):
    start(make(num_experts=3, capacity=6))
    start(make(num_experts=3, capacity=6))
  assert len(traces) == 2


@pytest.mark.parametrize("make", [simplex, box])
def test_bad_sizes(make):
  with pytest.raises(ValueError, match="at least 2, got num_experts=1"):
    make(num_experts=1, capacity=3)
  with pytest.raises(ValueError, match="at least 1, got capacity=0"):
    make(num_experts=2, capacity=0)


@pytest.mark.parametrize("budget", [0, 9, -1])
def test_bad_budget(budget):
  with pytest.raises(
    ValueError,
    match=r"budget must be in \[1, num_experts\], got "
    f"budget={budget}, num_experts=8",
  ):
    box(num_experts=8, capacity=3, budget=budget)
