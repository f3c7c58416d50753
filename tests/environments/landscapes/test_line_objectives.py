from typing import NamedTuple

import brute_force
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tanbr_jax.environments.landscapes import families

E, V = 3, 4
NAMES = ["difficult", "double_sine", "garland"]


def _reference(name, distance):
  """The rounded objectives in float64, at distances y - t_v."""

  def rounded(values, at):
    return np.sqrt(values**2 + at**2)

  if name == "garland":
    z = distance + np.pi / 6
    root = np.sqrt(rounded(np.sin(60 * z), 2.0**-10))
    return z * (1 - z) * (4 - root)
  if name == "double_sine":
    u = rounded(2 * distance, 2.0**-9.5)
    wide, narrow = u ** -np.log2(0.8), u ** -np.log2(0.3)
    return (1 + np.sin(np.pi * np.log2(u))) / 2 * (wide - narrow) - wide
  d = rounded(distance, np.exp(-7.25))
  slope = 0.5 / np.sin(2 * np.pi * 0.016)
  upper = np.clip(0.5 - slope * np.sin(2 * np.pi * np.log(d)), 0, 1)
  return upper * (np.sqrt(d) - d**2) - np.sqrt(d)


class Played(NamedTuple):
  name: str
  mixes: np.ndarray  # [M, V]
  peaks: np.ndarray  # [V]
  places: np.ndarray  # [E]
  best: np.ndarray  # [M, E]
  found: np.ndarray  # [M]
  points: np.ndarray  # [N, E]
  rewards: np.ndarray  # [N, V]
  bounds: tuple[np.ndarray, np.ndarray]


@pytest.fixture(scope="module", params=NAMES)
def played(request):
  family = families.FAMILIES[request.param](
    num_experts=E, num_tasks=V, scale=1.0
  )
  rng = np.random.default_rng(0)
  mixes = np.concatenate(
    [rng.dirichlet(np.full(V, 0.3), 10), rng.dirichlet(np.ones(V), 9)]
    + [np.eye(V)]
  )
  points = rng.dirichlet(np.ones(E), 300)

  @jax.jit
  def play(key, mixes, points):
    params = family.init(key)

    def one(mix):
      weights = family.optimum(params, mix)
      return weights, mix @ family.reward(params, weights)

    rewards = jax.vmap(lambda x: family.reward(params, x))(points)
    bounds = family.bounds(params)
    places = params.image.places[:, 0]
    return params.tasks.peaks, places, *jax.vmap(one)(mixes), rewards, bounds

  peaks, places, best, found, rewards, bounds = jax.tree.map(
    lambda leaf: np.asarray(leaf, np.float64),
    play(jax.random.key(1), jnp.float32(mixes), jnp.float32(points)),
  )
  return Played(
    request.param, mixes, peaks, places, best, found, points, rewards, bounds
  )


def test_optimum_against_brute_force(played):
  grid = np.concatenate([np.linspace(0, 1, 100_001), played.peaks])[:, None]
  exact = brute_force.largest(
    lambda y: _reference(played.name, y - played.peaks),
    played.mixes,
    grid,
    1e-5,
    num_refined=200,
    num_steps=8,
  )
  assert (played.best >= 0).all()
  np.testing.assert_allclose(played.best.sum(1), 1.0, atol=1e-6)
  np.testing.assert_allclose(played.found, exact, atol=1e-4)


def test_rewards_are_those_of_the_known_function(played):
  pytest.importorskip("PyXAB")
  from PyXAB.synthetic_obj import DifficultFunc, DoubleSine, Garland

  known, peak = {
    "difficult": (DifficultFunc.DifficultFunc(), 0.5),
    "double_sine": (DoubleSine.DoubleSine(), 0.5),
    "garland": (Garland.Garland(), np.pi / 6),
  }[played.name]
  y = played.points @ played.places
  z = y[:, None] - played.peaks + peak
  expected = np.vectorize(lambda value: known.f([value]))(z)
  error = np.abs(played.rewards - expected)
  # But for a tenth of the points, in a ramp (3 % of log d) or near a cusp or
  # peak, rounding the function off moves it by less than .002.
  assert np.quantile(error, 0.9) < 2e-3
  # A single task's peak: the rounded cusp of Garland costs
  # sqrt(2^-10) (pi / 6) (1 - pi / 6) = .0078, the other peaks 1e-5.
  top = {"garland": known.f([np.pi / 6]) - 0.0078}.get(played.name, 0.0)
  np.testing.assert_allclose(played.found[-V:], top, atol=1e-4)


def test_rewards_keep_to_the_bounds(played):
  low, high = played.bounds
  assert low <= played.rewards.min() and played.rewards.max() <= high
  assert high - low < 2 * (played.rewards.max() - played.rewards.min())


def test_uniform_weights_are_in_the_middle(played):
  np.testing.assert_allclose(np.sort(played.places), [0, 0.5, 1])
