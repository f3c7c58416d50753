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


def test_each_dominant_task_has_a_tree_and_a_clock_of_its_own():
  options = dict(num_experts=3, num_tasks=2, capacity=255, cells="box")
  rng = np.random.default_rng(1)
  tasks = jnp.asarray(rng.permutation(np.arange(80) % 2), jnp.int32)
  rewards = jnp.asarray(0.1 * rng.normal(size=80), jnp.float32)
  state, (weights, _) = plain_box.play_tasks(hct(**options), tasks, rewards)
  np.testing.assert_array_equal(state.bandit.forest.rounds, [40, 40])
  alone = hct(context="none", **options)
  for task in (0, 1):
    mine = np.asarray(tasks) == task
    _, (expected, _) = plain_box.play_tasks(alone, tasks[mine], rewards[mine])
    # The same arithmetic in another program: rounding only.
    np.testing.assert_allclose(weights[mine], expected, atol=1e-6)
    assert len(np.unique(np.asarray(expected), axis=0)) > 3


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
