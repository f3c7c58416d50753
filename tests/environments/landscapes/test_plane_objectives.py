import functools

import brute_force
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tanbr_jax.environments.landscapes import families

E, V = 3, 4
TURN = 2 * np.pi


def _himmelblau(z):
  a, b = z[..., 0], z[..., 1]
  return -((a**2 + b - 11) ** 2 + (a + b**2 - 7) ** 2) / 170


def _ackley(z):
  cone = 20 * np.exp(-0.2 * np.sqrt((z**2).mean(-1)))
  return (cone + np.exp(np.cos(TURN * z).mean(-1)) - 20 - np.e) / 10


def _rastrigin(z):
  return -(z**2 + 10 * (1 - np.cos(TURN * z))).sum(-1) / 20


OBJECTIVES = {
  "ackley": (_ackley, 2.0),
  "himmelblau": (_himmelblau, 5.5),
  "rastrigin": (_rastrigin, 1.5),
}


def _reference(name, params, weights):
  """The rewards [n, V] of weights [n, E] in float64."""
  y = weights @ params.image.places
  if name == "cosine":
    angles = np.einsum("nd,vwd->nvw", y, params.tasks.frequencies)
    return np.cos(angles + params.tasks.phases).mean(-1)
  value, radius = OBJECTIVES[name]
  away = y[:, None] - params.tasks.origins
  return value(radius * np.einsum("vij,nvj->nvi", params.tasks.turns, away))


@pytest.mark.parametrize("name", ["cosine", *sorted(OBJECTIVES)])
def test_optimum_against_brute_force(name):
  family = families.FAMILIES[name](num_experts=E, num_tasks=V, scale=1.0)
  rng = np.random.default_rng(0)
  mixes = np.concatenate(
    [rng.dirichlet(np.full(V, 0.3), 8), rng.dirichlet(np.ones(V), 8), np.eye(V)]
  )

  @jax.jit
  def play(key):
    params = family.init(key)

    def one(mix):
      weights = family.optimum(params, mix)
      return weights, mix @ family.reward(params, weights)

    return params, jax.vmap(one)(jnp.float32(mixes)), family.bounds(params)

  for seed in range(2):
    params, (weights, found), bounds = play(jax.random.key(seed))
    params = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)
    assert (weights >= 0).all()
    np.testing.assert_allclose(weights.sum(1), 1.0, atol=1e-6)
    reward = functools.partial(_reference, name, params)
    grid = brute_force.triangle(200)
    exact = brute_force.largest(reward, mixes, grid, 0.005)
    np.testing.assert_allclose(found, exact, atol=1e-4)
    table = reward(grid)
    assert bounds[0] <= table.min() and table.max() <= bounds[1]
    assert bounds[1] - bounds[0] < 1.5 * (table.max() - table.min())
    if name in ("ackley", "rastrigin"):
      # A single task's best is at its origin, which lies in the triangle.
      np.testing.assert_allclose(found[-V:], 0.0, atol=1e-5)


def test_himmelblau_by_hand():
  # (3, 2) is a peak, and the centre pays -(11^2 + 7^2) / 170.
  assert _himmelblau(np.array([3.0, 2.0])) == 0
  assert _himmelblau(np.zeros(2)) == -1


@pytest.mark.parametrize(
  ("build", "message"),
  [
    (
      lambda: families.cosine(num_experts=3, num_tasks=2, high=20.0),
      "high=20.0",
    ),
    (lambda: families.cosine(num_experts=3, num_tasks=2, low=0.0), "low=0.0"),
    (lambda: families.ackley(num_experts=2, num_tasks=2), "num_experts=2"),
    (lambda: families.plateau(num_experts=3, num_tasks=13), "num_tasks=13"),
    (
      lambda: families.plateau(num_experts=3, num_tasks=2, radius=0.0),
      "radius=0.0",
    ),
    (lambda: families.wheel(num_experts=3, num_tasks=2, delta=1.0), "delta=1"),
    (lambda: families.wheel(num_experts=2, num_tasks=2), "num_experts=2"),
  ],
)
def test_bad_arguments_are_one_line_errors(build, message):
  with pytest.raises(ValueError, match=message) as error:
    build()
  assert "\n" not in str(error.value)
