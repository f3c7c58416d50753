import brute_force
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tanbr_jax.environments import synthetic
from tanbr_jax.environments.landscapes import changed_families, families
from tanbr_jax.environments.mixes import fixed

E, V = 3, 2
RATE = 0.1


def _moving(name):
  family = families.FAMILIES[name](num_experts=E, num_tasks=2 * V)
  return changed_families.moving(family, num_tasks=V, rate=RATE)


def test_the_optimum_moves_with_the_rewards():
  family = _moving("saturating")
  mixes = np.array([[1.0, 0.0], [0.3, 0.7]])

  @jax.jit
  def play(key):
    def slot(params, _):
      def one(mix):
        best = family.optimum(params, mix)
        return mix @ family.reward(params, best)

      found = jax.vmap(one)(jnp.float32(mixes))
      return family.advance(params), (params.angle, found)

    params = family.init(key)
    return params, *jax.lax.scan(slot, params, length=11)[1]

  params, angles, found = play(jax.random.key(0))
  gains = np.asarray(params.landscape, np.float64).reshape(2, V, E)
  for slot in (0, 3, 7):
    angle = np.asarray(params.angle, np.float64) + slot * np.pi * RATE
    weighted = (
      np.cos(angle)[:, None] ** 2 * gains[0]
      + np.sin(angle)[:, None] ** 2 * gains[1]
    )
    exact = brute_force.largest(
      lambda x, gains=weighted: (1 - np.exp(-4 * x)) @ gains.T,
      mixes,
      brute_force.triangle(50),
      0.02,
    )
    np.testing.assert_allclose(found[slot], exact, atol=1e-4)
  # A round in 1 / rate slots, and not earlier.
  np.testing.assert_allclose(found[10], found[0], atol=1e-5)
  assert np.abs(found[5] - found[0]).max() > 0.01
  assert (angles >= 0).all() and (angles < np.pi).all()


def test_unit_interval_keeps_the_best_weights():
  family = families.linear_contextual(num_experts=E, num_tasks=V)
  unit = changed_families.to_unit_interval(family)
  params = unit.init(jax.random.key(0))
  slopes = np.asarray(params.landscape)
  mix = jnp.array([0.4, 0.6])
  best = unit.optimum(params, mix)
  np.testing.assert_array_equal(best, family.optimum(params.landscape, mix))
  scaled = (slopes @ best - slopes.min()) / (slopes.max() - slopes.min())
  np.testing.assert_allclose(unit.reward(params, best), scaled, atol=1e-6)
  assert unit.bounds(params) == (0.0, 1.0)


@pytest.mark.parametrize("requests", [None, 5])
def test_binary_rewards_of_a_drifting_stream(requests):
  environment = synthetic.synthetic(
    "linear_contextual",
    num_experts=E,
    num_tasks=V,
    task_mix=fixed(jnp.array([0.4, 0.6])),
    noise_kind="bernoulli",
    reward_drift=0.01,
    requests=requests,
  )

  @jax.jit
  def rollout(environment, key):
    def slot(state, step_key):
      feedback, outcome, state = environment.step(
        step_key, state, jnp.array([0.8, 0.2, 0.0])
      )
      return state, (feedback, outcome)

    keys = jax.random.split(key, 3000)
    return jax.lax.scan(slot, environment.init(key), keys)[1]

  feedback, outcome = rollout(environment, jax.random.key(4))
  reward, count = map(np.asarray, feedback[:2])
  if requests is None:
    assert set(np.unique(reward)) == {0.0, 1.0}
  hits = reward * count
  np.testing.assert_allclose(hits, np.round(hits), atol=1e-5)
  expected = np.asarray(outcome.expected_reward)
  assert (expected >= 0).all() and (outcome.optimal_reward <= 1).all()
  assert (outcome.optimal_reward - expected > -1e-5).all()
  # 30 whole rounds; the deviation of a slot is below 1/2, hence the standard
  # error of the difference of means below .5 / sqrt(3000) = .009.
  realised = np.asarray(outcome.realised_reward)
  assert realised.mean() == pytest.approx(expected.mean(), abs=0.04)
  np.testing.assert_allclose(expected[100:], expected[:-100], atol=1e-4)
  assert expected.std() > 0.01


def test_bad_arguments_are_one_line_errors():
  family = families.quadratic(num_experts=E, num_tasks=2 * V)
  with pytest.raises(ValueError, match="got 0.6"):
    changed_families.moving(family, num_tasks=V, rate=0.6)
  with pytest.raises(ValueError, match="got none"):
    changed_families.to_unit_interval(family._replace(bounds=None))
