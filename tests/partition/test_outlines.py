import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tanbr_jax.partition import box, simplex
from tanbr_jax.partition.outlines import outlines


def grow(partition, num_splits):
  """A tree grown by splitting the leaf of random points, as a bandit would."""
  locate, split = jax.jit(partition.locate), jax.jit(partition.split)
  tree = partition.init()
  # Squared uniforms lie near the vertices, so that depths differ.
  points = np.random.default_rng(0).dirichlet(np.full(3, 0.5), num_splits)
  for point in points.astype(np.float32):
    tree = split(tree, locate(tree, jnp.asarray(point)))
  return tree


def plane(points):
  """Weights as points of the plane, area preserved up to a factor."""
  return points[:, :2]


def area(corners):
  x, y = plane(corners).T
  return 0.5 * np.sum(np.roll(x, 1) * y - x * np.roll(y, 1))


def depth_inside(corners, point):
  """How far a point is inside a convex polygon; negative outside."""
  a, b = plane(corners), plane(np.roll(corners, -1, axis=0))
  edges, arms = b - a, plane(point[None]) - a
  cross = edges[:, 0] * arms[:, 1] - edges[:, 1] * arms[:, 0]
  return np.min(np.sign(area(corners)) * cross)


@pytest.fixture(
  scope="module",
  params=[simplex(num_experts=3, capacity=63), box(num_experts=3, capacity=63)],
  ids=["simplex", "box"],
)
def grown(request):
  tree = grow(request.param, 25)
  return request.param, tree, outlines(tree)


def test_outlines_cover_the_simplex_once(grown):
  _, tree, cells = grown
  assert sorted(cells) == list(np.flatnonzero(tree.is_leaf))
  for corners in cells.values():
    np.testing.assert_allclose(corners.sum(axis=1), 1, atol=1e-12)
    assert corners.min() >= 0
  # The simplex itself has area 1/2 in these coordinates.
  total = sum(abs(area(corners)) for corners in cells.values())
  assert total == pytest.approx(0.5, abs=1e-12)


def test_outlines_agree_with_locate(grown):
  partition, tree, cells = grown
  points = np.random.default_rng(1).dirichlet(np.ones(3), 200)
  leaves = jax.vmap(partition.locate, (None, 0))(
    tree, jnp.asarray(points, jnp.float32)
  )
  for point, leaf in zip(points, np.asarray(leaves), strict=True):
    # Rounding to float32 may move a point over an edge by 1e-7.
    assert depth_inside(cells[int(leaf)], point) > -1e-6
    others = [c for other, c in cells.items() if other != leaf]
    assert max(depth_inside(c, point) for c in others) < 1e-6


def test_box_cells_by_hand():
  # [0, .5] x [0, 1]^2 and [.5, 1] x [0, 1]^2, cut at x_0 = 1/2.
  partition = box(num_experts=3, capacity=3)
  cells = outlines(jax.jit(partition.split)(partition.init(), 0))
  lower = {(0, 1, 0), (0, 0, 1), (0.5, 0.5, 0), (0.5, 0, 0.5)}
  assert {tuple(map(float, c)) for c in cells[1]} == lower
  upper = {(1, 0, 0), (0.5, 0.5, 0), (0.5, 0, 0.5)}
  assert {tuple(map(float, c)) for c in cells[2]} == upper


def test_only_three_experts_have_a_picture():
  tree = simplex(num_experts=4, capacity=3).init()
  with pytest.raises(ValueError, match="got SimplexTree, num_experts=4"):
    outlines(tree)
