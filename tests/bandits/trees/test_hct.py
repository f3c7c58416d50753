"""HCT against PyXAB's: decision by decision where that is the paper's."""

import jax.numpy as jnp
import numpy as np
import plain_box
import pytest
from PyXAB.algos.HCT import HCT, compute_t_plus

from tanbr_jax.bandits import hct

ROUNDS, SEEDS = 400, 8
NUMBERS = dict(nu=1.0, rho=0.6, c=0.1, delta=0.01)


class PaperHCT(HCT):
  """PyXAB's HCT with two repairs, after which it does what the paper says.

  PyXAB splits a node again when the doubling of t+ has raised its threshold
  and it reaches that once more, which throws away all that lies below it; the
  paper splits leaves only. And PyXAB computes U anew after the decision of a
  round that is a power of two, the paper before it.
  """

  def expand(self, parent):
    if parent.get_children() is None:
      super().expand(parent)

  def optTraverse(self):  # noqa: N802
    if self.iteration == compute_t_plus(self.iteration):
      self.updateUvalueTree()
      self.updateBackwardTree()
    return super().optTraverse()


def make(dimension):
  return hct(**plain_box.trees(dimension, 127, 12), **NUMBERS)


def play_pyxab(constructor, dimension, noise):
  algorithm = constructor(
    domain=[[0, 1]] * dimension, partition=plain_box.LongestSide, **NUMBERS
  )
  return plain_box.play_pyxab(algorithm, noise)


@pytest.fixture(scope="module")
def noise():
  return 0.1 * np.random.default_rng(0).normal(size=(SEEDS, ROUNDS))


@pytest.fixture(scope="module", params=[1, 2])
def played(request, noise):
  return request.param, plain_box.play_ours(make(request.param), noise)


def test_decisions_are_those_of_pyxab_repaired(played, noise):
  dimension, ours = played
  for points, draws in list(zip(ours, noise, strict=True))[:3]:
    theirs = play_pyxab(PaperHCT, dimension, draws)
    # Cells' centres are dyadic, so that equal decisions are equal numbers.
    np.testing.assert_array_equal(points, theirs)
    assert len(np.unique(points, axis=0)) > 20


def test_regret_is_pyxabs_within_the_spread_over_seeds(played, noise):
  dimension, ours = played
  theirs = np.stack([play_pyxab(HCT, dimension, draws) for draws in noise])
  rewards = [plain_box.wave(points).sum(axis=1) for points in (ours, theirs)]
  difference = rewards[0] - rewards[1]
  # Three standard errors of the difference of means over seeds.
  error = np.sqrt(sum(r.var(ddof=1) for r in rewards) / SEEDS)
  assert abs(difference.mean()) < 3 * error
  # Both learn: a point drawn at random has a mean reward of about .47.
  assert min(r.mean() for r in rewards) > 0.55 * ROUNDS


@pytest.fixture(scope="module")
def two_trees():
  """80 slots of two tasks by turns at random: the tasks, a state, weights."""
  rng = np.random.default_rng(1)
  tasks = rng.permutation(np.arange(80) % 2)
  rewards = jnp.asarray(0.1 * rng.normal(size=80), jnp.float32)
  bandit = hct(
    num_experts=3, num_tasks=2, capacity=255, cells="box", reward_range=(-2, 2)
  )
  state, (weights, _) = plain_box.play_tasks(
    bandit, jnp.asarray(tasks, jnp.int32), rewards
  )
  return tasks, state.bandit, np.asarray(weights)


def test_each_dominant_task_has_a_tree(two_trees):
  tasks, state, weights = two_trees
  forest = state.forest
  owners, visits = np.asarray(forest.owners), np.asarray(forest.visits)
  points = np.asarray(forest.tree.representatives)
  for task in (0, 1):
    nodes = np.flatnonzero((owners == task) & (visits > 0))
    # The cells of a tree were played as often as its task's slots say.
    found = {}
    for node in nodes:
      key = points[node].tobytes()
      found[key] = found.get(key, 0) + visits[node]
    played, counts = np.unique(
      weights[tasks == task], axis=0, return_counts=True
    )
    assert found == {
      point.tobytes(): count
      for point, count in zip(played, counts, strict=True)
    }
    assert len(played) > 3


def test_trees_count_their_rounds_together(two_trees):
  """U of every cell has the t+ of its last play, or of round 64, if later.

  In round 64, a power of two, U of all cells of both trees is computed anew
  with t+ = 64; cells that were played later have t+ = 128.
  """
  tasks, state, weights = two_trees
  forest = state.forest
  nu, rho, c, delta = 0.2, 0.9, 0.05, 0.01
  late = [(tasks[t], weights[t].tobytes()) for t in range(64, 80)]
  points = np.asarray(forest.tree.representatives)
  for node in np.flatnonzero(np.asarray(forest.visits) > 0):
    owner = int(forest.owners[node])
    rounds = 128 if (owner, points[node].tobytes()) in late else 64
    log_term = np.log(rounds / ((rho / (3 * nu)) ** 0.125 * delta))
    expected = (
      float(forest.means[node])
      + nu * rho ** int(forest.tree.depths[node])
      + c * np.sqrt(log_term / float(forest.visits[node]))
    )
    # float32 has 1e-7, of a sum of three numbers below 1.
    np.testing.assert_allclose(state.uppers[node], expected, rtol=1e-6)
  assert len(set(late)) > 4


@pytest.mark.parametrize(
  ("options", "message"),
  [
    (dict(rho=0.0), "rho must be in"),
    (dict(nu=-1.0), "nu must be"),
    (dict(c=0.0), "c must be"),
    (dict(delta=1.0), "delta must be in"),
    (dict(context=None), "context must be one of"),
    (dict(cells="cube"), "cells must be"),
  ],
)
def test_bad_input(options, message):
  with pytest.raises(ValueError, match=message):
    hct(**dict(num_experts=3, num_tasks=2) | options)
