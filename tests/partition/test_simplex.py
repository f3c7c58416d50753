"""The native tree against a float64 recursion and against linear algebra."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from growing import grow, uniforms

from tanbr_jax.partition import Tree, base, simplex


def recursion(num_experts, nodes):
  """Cells of the same splits, written plainly in float64."""
  cells, parents, depths = [np.eye(num_experts)], [-1], [0]
  children = [[-1, -1]]
  for node in nodes:
    cell, best, edge = cells[node], 0.0, None
    for a in range(num_experts):
      for b in range(a + 1, num_experts):
        square = ((cell[a] - cell[b]) ** 2).sum()
        if square > best * (1 + 1e-9):
          best, edge = square, (a, b)
    midpoint = (cell[edge[0]] + cell[edge[1]]) / 2
    children[node] = [len(cells), len(cells) + 1]
    for replaced in (edge[1], edge[0]):
      child = cell.copy()
      child[replaced] = midpoint
      cells.append(child)
      parents.append(node)
      depths.append(depths[node] + 1)
      children.append([-1, -1])
  return np.stack(cells), parents, depths, children


def points_for(num_experts):
  """Random points, two corners and the middle of an edge: [203, E]."""
  points = np.random.default_rng(1).dirichlet([0.7] * num_experts, 200)
  corners = np.eye(num_experts)[:2]
  middle = corners.mean(axis=0)[None, :]
  return np.concatenate([points, corners, middle]).astype(np.float32)


@functools.cache
def grown(num_experts, capacity):
  """A grown tree, and every function on all nodes and points, in one jit."""
  partition = simplex(num_experts=num_experts, capacity=capacity)

  @jax.jit
  def measure(uniforms, points):
    tree, splits = grow(partition, uniforms)
    nodes = jnp.arange(capacity)
    over_nodes = jax.vmap(partition.contains, (None, 0, None))
    return dict(
      tree=tree,
      splits=splits,
      located=jax.vmap(partition.locate, (None, 0))(tree, points),
      contains=jax.vmap(over_nodes, (None, None, 0))(tree, nodes, points[-9:]),
      own=jax.vmap(partition.locate, (None, 0))(tree, tree.representatives),
      diameters=jax.vmap(partition.diameter, (None, 0))(tree, nodes),
      volumes=jax.vmap(partition.volume, (None, 0))(tree, nodes),
    )

  points = points_for(num_experts)
  measured = measure(uniforms((capacity - 1) // 2), points)
  return jax.device_get(measured) | dict(points=points.astype(np.float64))


@pytest.fixture(scope="module", params=[(4, 100), (8, 301)], ids=str)
def case(request):
  return grown(*request.param)


def cells_of(tree):
  """The corners of the cells in use: [num_nodes, E, E] float64."""
  cells = tree.vertices[tree.vertex_ids[: tree.num_nodes]]
  return cells.astype(np.float64)


def test_equals_the_recursion(case):
  tree, num_nodes = case["tree"], case["tree"].num_nodes
  cells, parents, depths, children = recursion(
    tree.representatives.shape[1], case["splits"]
  )
  # Corners are dyadic: float32 holds them exactly.
  np.testing.assert_array_equal(cells_of(tree), cells)
  np.testing.assert_array_equal(tree.parents[:num_nodes], parents)
  np.testing.assert_array_equal(tree.depths[:num_nodes], depths)
  np.testing.assert_array_equal(tree.children[:num_nodes], children)
  np.testing.assert_array_equal(
    tree.is_leaf[:num_nodes], np.asarray(children)[:, 0] == -1
  )
  assert not tree.is_leaf[num_nodes:].any()
  assert (tree.parents[num_nodes:] == Tree.NO_PARENT).all()
  # A mean of E numbers below 1 in float32.
  np.testing.assert_allclose(
    tree.representatives[:num_nodes], cells.mean(axis=1), atol=2e-7
  )
  np.testing.assert_allclose(tree.representatives.sum(axis=1), 1, atol=1e-6)


def test_volumes_add_up(case):
  tree = case["tree"]
  # The volume of a simplex on the unit simplex is |det| of its corners.
  np.testing.assert_allclose(
    case["volumes"][: tree.num_nodes],
    abs(np.linalg.det(cells_of(tree))),
    rtol=1e-6,
  )
  assert case["volumes"][tree.is_leaf].sum() == 1.0


def test_points_lie_in_one_leaf(case):
  tree, points, located = case["tree"], case["points"], case["located"]
  # Independent of the walk: barycentric coordinates by a linear solve. A
  # point is inside where none is negative, up to the rounding of the point
  # (6e-8) times the size of the inverse.
  leaves = np.flatnonzero(tree.is_leaf)
  inverses = np.linalg.inv(cells_of(tree)[leaves])
  least = np.einsum("ne,lef->nlf", points, inverses).min(axis=2)
  inside = least > -1e-7 * abs(inverses).sum((1, 2))[None, :]
  rows = np.arange(len(points))
  assert inside[rows, np.searchsorted(leaves, located)].all()
  assert tree.is_leaf[located].all()
  assert ((least > 1e-4).sum(axis=1) <= 1).all()
  # In nearly every case no other leaf is even near: there is no choice.
  assert (inside.sum(axis=1) == 1).mean() > 0.9


def test_contains_is_one_hot_of_locate(case):
  tree, contains = case["tree"], case["contains"]
  for row, leaf in zip(contains, case["located"][-9:], strict=True):
    np.testing.assert_array_equal(np.flatnonzero(row & tree.is_leaf), [leaf])
    # Ancestors contain what their leaf contains, and nothing else does.
    ancestors = [int(leaf)]
    while ancestors[-1] != Tree.ROOT:
      ancestors.append(int(tree.parents[ancestors[-1]]))
    assert sorted(ancestors) == list(np.flatnonzero(row))


def test_the_walk_of_a_gpu_ends_in_the_same_leaf(case, monkeypatch):
  """It goes down several levels in a turn."""
  tree = jax.tree.map(jnp.asarray, case["tree"])
  capacity, num_experts = tree.representatives.shape
  partition = simplex(num_experts=num_experts, capacity=capacity)
  monkeypatch.setattr(
    jax.lax, "platform_dependent", lambda x, *, cuda, default: cuda(x)
  )
  # A function of its own, which jit has not traced on a CPU.
  locate = jax.jit(jax.vmap(lambda weights: partition.locate(tree, weights)))
  points = jnp.asarray(case["points"], jnp.float32)
  np.testing.assert_array_equal(locate(points), case["located"])
  assert tree.depths.max() > base._BURST


def test_representatives_are_located_in_their_cells(case):
  leaves = np.flatnonzero(case["tree"].is_leaf)
  np.testing.assert_array_equal(case["own"][leaves], leaves)


def test_diameters(case):
  tree, num_nodes = case["tree"], case["tree"].num_nodes
  cells = cells_of(tree)
  gaps = cells[:, :, None] - cells[:, None]
  brute = np.sqrt((gaps**2).sum(axis=-1)).max(axis=(1, 2))
  np.testing.assert_allclose(case["diameters"][:num_nodes], brute, rtol=1e-6)
  # Kearfott (1978): at least sqrt(3)/2 every E - 1 levels.
  levels = tree.depths[:num_nodes] // (cells.shape[1] - 1)
  assert (brute <= np.sqrt(2) * (3 / 4) ** (levels / 2) + 1e-12).all()


def test_segment_halves_at_every_level():
  # With two experts the simplex is a segment: its cells are exact halves.
  partition = simplex(num_experts=2, capacity=15)
  tree, split = partition.init(), jax.jit(partition.split)
  for node in (0, 2, 4, 6):
    tree = split(tree, node)
  diameter = jax.jit(partition.diameter)
  for node, share in ((0, 1), (2, 1 / 2), (4, 1 / 4), (6, 1 / 8), (8, 1 / 16)):
    np.testing.assert_allclose(
      diameter(tree, node), share * np.sqrt(2), rtol=1e-6
    )
  # The upper child keeps the second corner: the last cell is [0, 1/16].
  np.testing.assert_allclose(tree.representatives[8], [1 / 32, 31 / 32])
  # Ties go to the lower child: (1/2, 1/2) is node 1's, (1/4, 3/4) node 3's.
  assert int(partition.locate(tree, jnp.array([0.5, 0.5]))) == 1
  assert int(partition.locate(tree, jnp.array([0.25, 0.75]))) == 3


def test_long_chain_of_splits_stays_exact():
  # Always the last child: the smallest cells that float32 meets.
  partition = simplex(num_experts=4, capacity=201)
  deepest = jnp.arange(100) * 2
  tree, _ = jax.lax.scan(
    lambda tree, node: (partition.split(tree, node), None),
    partition.init(),
    deepest,
  )
  num_splits = (int(tree.num_nodes) - 1) // 2
  cells, *_ = recursion(4, range(0, 2 * num_splits, 2))
  np.testing.assert_array_equal(cells_of(jax.device_get(tree)), cells)
  # The splits end at the first cell of the chain below the resolution.
  gaps = cells[-3::2, :, None] - cells[-3::2, None]
  diameters = np.sqrt((gaps**2).sum(axis=-1)).max(axis=(1, 2))
  assert diameters[0] > Tree.RESOLUTION >= diameters[1]
  assert not tree.full


def walked_cell(num_experts, splits, target):
  """One cell, by its path from the root: all of them would take 600 MB."""
  path = []
  while target != 0:
    path.append((target - 1) % 2)
    target = splits[(target - 1) // 2]
  cell = np.eye(num_experts)
  for side in reversed(path):
    squares = np.triu(((cell[:, None] - cell[None]) ** 2).sum(axis=-1), 1)
    longest = squares > squares.max() * (1 - 1e-9)
    a, b = divmod(int(np.argmax(longest)), num_experts)
    cell[(b, a)[side]] = (cell[a] + cell[b]) / 2
  return cell


def test_many_experts():
  partition = simplex(num_experts=192, capacity=2048)
  # Fewer splits than there is room for: this is about memory and indices.
  tree, splits = jax.device_get(
    jax.jit(functools.partial(grow, partition))(uniforms(200))
  )
  assert tree.num_nodes == 401
  assert sum(leaf.nbytes for leaf in jax.tree.leaves(tree)) < 5e6
  for node in (1, 2, 399, 400):
    cell = tree.vertices[tree.vertex_ids[node]]
    np.testing.assert_array_equal(cell, walked_cell(192, splits, node))
    assert np.allclose(tree.representatives[node], cell.mean(axis=0))
  np.testing.assert_allclose(tree.representatives.sum(axis=1), 1, atol=1e-6)
