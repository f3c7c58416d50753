"""The adapter to PyXAB: its map, its rounds, its errors."""

import sys

import numpy as np
import pytest
import toy

from tanbr_jax.bandits import uniform
from tanbr_jax.online import rollout
from third_party import pyxab


def test_stick_breaking_reaches_the_corners():
  np.testing.assert_allclose(pyxab.to_simplex([1, 0.3]), [1, 0, 0])
  np.testing.assert_allclose(pyxab.to_simplex([0, 1]), [0, 1, 0])
  np.testing.assert_allclose(pyxab.to_simplex([0, 0]), [0, 0, 1])


def test_stick_breaking_keeps_volumes():
  points = np.random.default_rng(0).random((4000, 3))
  weights = np.asarray([pyxab.to_simplex(point) for point in points])
  np.testing.assert_allclose(weights.sum(axis=1), 1, atol=1e-12)
  # Uniform on the simplex of 4 is Dirichlet(1): mean 1/4, variance 3/80; five
  # standard errors of 4000 draws are .015 and about .005.
  np.testing.assert_allclose(weights.mean(axis=0), 1 / 4, atol=0.015)
  np.testing.assert_allclose(weights.var(axis=0), 3 / 80, atol=0.005)


@pytest.fixture(scope="module")
def trace():
  return pyxab.run(
    "HCT",
    toy.environment(),
    num_experts=toy.SIZE,
    num_rounds=30,
    seeds=[3, 5],
    nu=1.0,
    rho=0.6,
  )


def test_it_meets_the_requests_that_our_bandits_meet(trace):
  bandit = uniform(num_experts=toy.SIZE, num_tasks=toy.SIZE)
  ours = rollout.run(
    bandit, toy.environment(), num_rounds=30, seeds=[3, 5], progress=False
  )
  np.testing.assert_array_equal(trace.task_count, ours.task_count)
  # Two programs of the same float32 operations, which XLA may fuse differently.
  np.testing.assert_allclose(trace.task_mix, ours.task_mix, atol=1e-6)
  np.testing.assert_allclose(
    trace.optimal_reward, ours.optimal_reward, atol=1e-6
  )
  # What the toy pays is linear in the weights: the noise is the same too.
  noise = [t.realised_reward - t.expected_reward for t in (trace, ours)]
  np.testing.assert_allclose(*noise, atol=1e-6)


def test_decisions_are_pyxabs_own(trace):
  weights = trace.merge_weights
  assert weights.shape == (2, 30, toy.SIZE)
  np.testing.assert_allclose(weights.sum(axis=-1), 1, atol=1e-6)
  assert len(np.unique(weights[0], axis=0)) > 2
  expected = np.sum(trace.task_mix * weights, axis=-1)
  np.testing.assert_allclose(trace.expected_reward, expected, atol=1e-6)


def test_numpys_global_generator_is_left_as_it_was():
  np.random.seed(0)
  expected = np.random.random()
  np.random.seed(0)
  options = dict(num_experts=3, num_rounds=2, seeds=[1], rounds=10)
  first = pyxab.run("T_HOO", toy.environment(), **options)
  assert np.random.random() == expected
  again = pyxab.run("T_HOO", toy.environment(), **options)
  np.testing.assert_array_equal(first.merge_weights, again.merge_weights)


def test_bad_input(monkeypatch):
  options = dict(num_experts=3, num_rounds=2, seeds=[0])
  with pytest.raises(ValueError, match="no algorithm 'NoSuch'"):
    pyxab.run("NoSuch", None, **options)
  with pytest.raises(ValueError, match="num_experts must be"):
    pyxab.run("HCT", None, **options | dict(num_experts=1))
  with pytest.raises(ValueError, match="num_rounds must be"):
    pyxab.run("HCT", None, **options | dict(num_rounds=0))
  with pytest.raises(ValueError, match="seeds must be"):
    pyxab.run("HCT", None, **options | dict(seeds=[]))
  monkeypatch.setitem(sys.modules, "PyXAB", None)
  with pytest.raises(ImportError, match="pip install 'PyXAB"):
    pyxab.algorithm("HCT")
