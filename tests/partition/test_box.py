"""The paper's tree against a float64 recursion, with and without a budget."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from growing import grow, uniforms

from tanbr_jax.partition import box


def points_for(num_experts, budget):
  """Feasible points, generic ones and ones on many boundaries: [N, E]."""
  rng = np.random.default_rng(1)
  points = np.zeros([100, num_experts])
  for row in points:
    support = rng.permutation(num_experts)[:budget]
    row[support] = rng.dirichlet([0.7] * budget)
  halves = [
    0.5 * (np.eye(num_experts)[a] + np.eye(num_experts)[b])
    for a, b in itertools.combinations(range(num_experts), 2)
  ]
  points = np.concatenate([points, np.eye(num_experts)])
  if budget > 1:
    points = np.concatenate([points, halves])
  return points.astype(np.float32)


@functools.cache
def grown(num_experts, capacity, budget):
  """A grown tree, and every function on all nodes and points, in one jit."""
  partition = box(num_experts=num_experts, capacity=capacity, budget=budget)

  @jax.jit
  def measure(uniforms, points):
    tree, splits = grow(partition, uniforms)
    nodes = jnp.arange(capacity)
    over_nodes = jax.vmap(partition.contains, (None, 0, None))
    return dict(
      tree=tree,
      splits=splits,
      located=jax.vmap(partition.locate, (None, 0))(tree, points),
      contains=jax.vmap(over_nodes, (None, None, 0))(tree, nodes, points),
      diameters=jax.vmap(partition.diameter, (None, 0))(tree, nodes),
      volumes=jax.vmap(partition.volume, (None, 0))(tree, nodes),
    )

  points = points_for(num_experts, budget)
  measured = measure(uniforms((capacity - 1) // 2), points)
  return jax.device_get(measured) | dict(points=points, budget=budget)


CASES = [(2, 61, 2), (8, 301, 8), (5, 200, 2), (3, 40, 1)]


@pytest.fixture(scope="module", params=CASES, ids=str)
def case(request):
  return grown(*request.param)


def represent(lower, upper, budget):
  """Feasibility by trying every support; the greedy one's projection."""
  num_experts = len(lower)
  forced = {e for e in range(num_experts) if lower[e] > 0}
  feasible = lower.sum() < 1 and any(
    forced <= set(support) and upper[list(support)].sum() >= 1
    for support in itertools.combinations(range(num_experts), budget)
  )
  if not feasible:
    return None
  center = (lower + upper) / 2
  ranked = sorted(
    range(num_experts), key=lambda e: (e not in forced, -center[e], e)
  )
  chosen = ranked[:budget]
  left, right = -1.0, 1.0
  for _ in range(80):
    shift = (left + right) / 2
    x = np.clip(center[chosen] - shift, lower[chosen], upper[chosen])
    left, right = (shift, right) if x.sum() > 1 else (left, shift)
  representative = np.zeros(num_experts)
  representative[chosen] = x
  return representative


def recursion(num_experts, budget, nodes):
  """The nodes after the same splits, written plainly in float64."""
  root = dict(lower=np.zeros(num_experts), upper=np.ones(num_experts))
  cells = [root | dict(parent=-1, depth=0, children=[-1, -1])]
  for node in nodes:
    parent = cells[node]
    sides = parent["upper"] - parent["lower"]
    axis = int(np.argmax(sides))
    middle = (parent["lower"][axis] + parent["upper"][axis]) / 2
    parent["children"] = [len(cells), len(cells) + 1]
    for moved in ("upper", "lower"):
      child = dict(lower=parent["lower"].copy(), upper=parent["upper"].copy())
      child[moved][axis] = middle
      child |= dict(parent=node, depth=parent["depth"] + 1, children=[-1, -1])
      cells.append(child)
  for cell in cells:
    cell["point"] = represent(cell["lower"], cell["upper"], budget)
  return cells


def test_equals_the_recursion(case):
  tree, num_nodes = case["tree"], case["tree"].num_nodes
  num_experts = tree.representatives.shape[1]
  cells = recursion(num_experts, case["budget"], case["splits"])
  assert len(cells) == num_nodes
  column = lambda name: np.stack([cell[name] for cell in cells])  # noqa: E731
  np.testing.assert_array_equal(tree.lowers[:num_nodes], column("lower"))
  np.testing.assert_array_equal(tree.uppers[:num_nodes], column("upper"))
  np.testing.assert_array_equal(tree.parents[:num_nodes], column("parent"))
  np.testing.assert_array_equal(tree.depths[:num_nodes], column("depth"))
  np.testing.assert_array_equal(tree.children[:num_nodes], column("children"))
  for node, cell in enumerate(cells):
    feasible = cell["point"] is not None
    assert tree.is_leaf[node] == (feasible and cell["children"][0] == -1)
    if feasible:
      # Rounding of numbers below 1 in float32.
      np.testing.assert_allclose(
        tree.representatives[node], cell["point"], atol=3e-7
      )
  assert not tree.is_leaf[num_nodes:].any()
  # Every case drops some cells, so that the branch above is taken.
  assert any(cell["point"] is None for cell in cells)


def test_representatives_are_feasible(case):
  tree, budget = case["tree"], case["budget"]
  np.testing.assert_allclose(tree.representatives.sum(axis=1), 1, atol=1e-6)
  assert ((tree.representatives > 0).sum(axis=1) <= budget).all()
  leaves = tree.is_leaf
  assert (tree.representatives >= tree.lowers)[leaves].all()
  assert (tree.representatives <= tree.uppers)[leaves].all()


def test_volumes_add_up_with_dropped_cells(case):
  tree, volumes = case["tree"], case["volumes"]
  sides = (tree.uppers - tree.lowers).astype(np.float64)
  used = np.arange(len(volumes)) < tree.num_nodes
  np.testing.assert_array_equal(volumes[used], sides.prod(axis=1)[used])
  ends = used & (tree.children[:, 0] == -1)
  assert volumes[ends].sum() == 1.0
  assert volumes[tree.is_leaf].sum() < 1.0


def test_points_lie_in_one_leaf(case):
  tree, points, located = case["tree"], case["points"], case["located"]
  # Independent of the walk: half-open boxes, closed at 0.
  above = (points[:, None] > tree.lowers) | (tree.lowers == 0)
  inside = (above & (points[:, None] <= tree.uppers)).all(axis=2)
  # Dropped cells are asked too: no point may be in one.
  inside &= (np.arange(len(tree.parents)) < tree.num_nodes)[None, :]
  inside &= (tree.children[:, 0] == -1)[None, :]
  np.testing.assert_array_equal(
    inside, np.arange(len(tree.parents))[None, :] == located[:, None]
  )
  assert tree.is_leaf[located].all()


def test_contains_is_one_hot_of_locate(case):
  tree, contains = case["tree"], case["contains"]
  nodes = np.arange(len(tree.parents))
  np.testing.assert_array_equal(
    contains & tree.is_leaf[None, :], nodes[None, :] == case["located"][:, None]
  )
  # A node contains what its children contain.
  inner = np.flatnonzero(tree.children[:, 0] >= 0)
  np.testing.assert_array_equal(
    contains[:, inner], contains[:, tree.children[inner]].any(axis=2)
  )


def test_diameters_halve_every_e_levels(case):
  tree = case["tree"]
  num_experts = tree.representatives.shape[1]
  # h = q E + r splits: r sides are 2^-(q+1), the others 2^-q.
  rounds, rest = np.divmod(tree.depths[: tree.num_nodes], num_experts)
  squares = 0.25**rounds * (num_experts - 0.75 * rest)
  np.testing.assert_allclose(
    case["diameters"][: tree.num_nodes], np.sqrt(squares), rtol=1e-6
  )


def test_locate_returns_leaves_for_any_weights():
  partition = box(num_experts=4, capacity=100, budget=2)

  @jax.jit
  def run(uniforms, points):
    tree, _ = grow(partition, uniforms)
    return tree, jax.vmap(partition.locate, (None, 0))(tree, points)

  # Supports of four are more than the budget; sums off by rounding, and the
  # corner (1/2, 1/2) from above, would lead into dropped cells.
  points = np.random.default_rng(3).dirichlet([2.0] * 4, 200)
  nudged = np.array([[0.5 + 6e-8, 0.5 + 6e-8, 0, 0], [0.5, 0.5, 1e-9, 0]])
  points = np.concatenate([points, points * (1 + 2e-7), nudged])
  tree, located = run(uniforms(49), points.astype(np.float32))
  assert tree.is_leaf[located].all()


def test_many_experts():
  partition = box(num_experts=192, capacity=2048, budget=16)
  tree, _ = jax.device_get(
    jax.jit(functools.partial(grow, partition))(uniforms(100))
  )
  assert tree.num_nodes == 201
  np.testing.assert_allclose(tree.representatives.sum(axis=1), 1, atol=1e-6)
  assert ((tree.representatives > 0).sum(axis=1) <= 16).all()
  leaves = np.flatnonzero(tree.is_leaf)[::10]
  for leaf in leaves:
    lower = tree.lowers[leaf].astype(np.float64)
    upper = tree.uppers[leaf].astype(np.float64)
    forced = lower > 0
    center = (lower + upper) / 2 + 2 * forced
    chosen = np.argsort(-center, kind="stable")[:16]
    assert forced.sum() <= 16 and upper[chosen].sum() >= 1
    assert set(np.flatnonzero(tree.representatives[leaf])) <= set(chosen)
