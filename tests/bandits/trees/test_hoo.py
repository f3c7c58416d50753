"""HOO against PyXAB's, decision by decision, and what is ours alone."""

import jax.numpy as jnp
import numpy as np
import plain_box
import pytest
from PyXAB.algos.HOO import T_HOO

from tanbr_jax.bandits import hoo

NU, RHO, ROUNDS, SEEDS = 1.0, 0.6, 400, 3
# ceil((log 400 / 2 - log 1) / log(1 / .6)) = ceil(5.86)
PAPER_DEPTH = 6
# PyXAB splits a node at the depth limit too, so its trees are one level deeper.
PYXAB_DEPTH = PAPER_DEPTH + 1


def make(dimension, **options):
  numbers = dict(nu=NU, rho=RHO, noise_scale=1.0, horizon=ROUNDS)
  return hoo(**plain_box.trees(dimension, 511, 12) | numbers | options)


def noises(scale=0.1):
  return scale * np.random.default_rng(0).normal(size=(SEEDS, ROUNDS))


@pytest.mark.parametrize(
  "dimension", [pytest.param(1, marks=pytest.mark.slow), 2]
)
def test_decisions_are_those_of_pyxab(dimension):
  noise = noises()
  ours = plain_box.play_ours(make(dimension, depth_limit=PYXAB_DEPTH), noise)
  for points, draws in zip(ours, noise, strict=True):
    theirs = plain_box.play_pyxab(
      T_HOO(
        nu=NU,
        rho=RHO,
        rounds=ROUNDS,
        domain=[[0, 1]] * dimension,
        partition=plain_box.LongestSide,
      ),
      draws,
    )
    # Cells' centres are dyadic, so that equal decisions are equal numbers.
    np.testing.assert_array_equal(points, theirs)
    assert len(np.unique(points, axis=0)) > 100


def test_depth_is_limited_as_in_the_paper():
  points = plain_box.play_ours(make(1), noises()[:1])[0, :, 0]
  # A centre at depth h is an odd multiple of 2^-(h + 1).
  assert np.all((points * 2 ** (PAPER_DEPTH + 1)) % 1 == 0)
  assert np.any((points * 2**PAPER_DEPTH) % 1 != 0)


def test_rewards_scale_with_what_they_are_told_in():
  """Smoothness and noise are told in widths of the rewards' range."""
  noise = noises()[:1, :100]
  small = make(1, nu=0.01 * NU, noise_scale=0.01)
  wide = make(1, reward_range=(0.0, 128.0))
  ours = plain_box.play_ours(make(1), noise)
  for scale, bandit in ((0.01, small), (128.0, wide)):
    scaled = plain_box.play_ours(
      bandit, scale * noise, lambda points, a=scale: a * plain_box.wave(points)
    )
    np.testing.assert_array_equal(ours, scaled)


@pytest.mark.slow
def test_each_dominant_task_has_a_tree_of_its_own():
  options = dict(num_experts=3, num_tasks=2, horizon=100)
  rng = np.random.default_rng(1)
  tasks = jnp.asarray(rng.permutation(np.arange(60) % 2), jnp.int32)
  rewards = jnp.asarray(rng.normal(size=60), jnp.float32)
  both = hoo(context="dominant_task", capacity=255, **options)
  alone = hoo(context="none", capacity=255, **options)
  _, (weights, _) = plain_box.play_tasks(both, tasks, rewards)
  for task in (0, 1):
    mine = np.asarray(tasks) == task
    _, (expected, _) = plain_box.play_tasks(alone, tasks[mine], rewards[mine])
    # The same arithmetic in another program: rounding only.
    np.testing.assert_allclose(weights[mine], expected, atol=1e-6)
    assert len(np.unique(np.asarray(expected), axis=0)) > 10


def test_a_full_pool_goes_on_and_says_so():
  bandit = hoo(num_experts=3, num_tasks=2, context="none", capacity=9, rho=0.9)
  rewards = jnp.asarray(np.random.default_rng(0).normal(size=60), jnp.float32)
  state, (weights, full) = plain_box.play_tasks(
    bandit, jnp.zeros(60, jnp.int32), rewards
  )
  assert not full[0] and full[-1]
  assert int(state.bandit.forest.num_leaves) == 5  # 9 nodes of a binary tree
  np.testing.assert_allclose(weights.sum(axis=1), 1, atol=1e-6)


@pytest.mark.parametrize(
  ("options", "message"),
  [
    (dict(rho=1.0), "rho must be in"),
    (dict(nu=0.0), "nu must be"),
    (dict(noise_scale=float("nan")), "noise_scale must be"),
    (dict(horizon=1), "horizon must be"),
    (dict(context="all"), "context must be one of"),
    (dict(cells="ball"), "cells must be"),
    (dict(capacity=5), "capacity must hold"),
    (dict(max_depth=0), "max_depth must be"),
    (dict(num_tasks=0), "num_tasks must be"),
    (dict(num_experts=1), "num_experts must be"),
  ],
)
def test_bad_input(options, message):
  with pytest.raises(ValueError, match=message):
    hoo(**dict(num_experts=3, num_tasks=2) | options)
