import jax
import ml_collections
import numpy as np
import pytest

from experiments.common import records, streams


def _settings(**changes):
  config = ml_collections.ConfigDict(
    {
      "num_experts": 3,
      "num_tasks": 2,
      "noise": 0.0,
      "requests": 0,
      "monitor_decay": 0.9,
      "mix_options": {"fixed": {"concentration": 0.5}},
      "num_rounds": 10,
    }
    | changes
  )
  return records.read(streams.SyntheticSettings, config)


def _first_slot(settings, family="wheel", mix="fixed"):
  environment = streams.make_environment(settings, family, mix)

  @jax.jit
  def first(key, weights):
    return environment.step(key, environment.init(key), weights)

  return first(jax.random.key(0), np.full(3, 1 / 3, np.float32))


def test_defaults_are_gaussian_noise_and_rewards_that_stay():
  feedback, outcome, state = _first_slot(_settings())
  # The wheel's inside pays .2 of its scale .5.
  np.testing.assert_allclose(feedback.task_reward, 0.1, atol=1e-6)
  assert state.landscape.shape == (2, 3)


def test_fields_reach_the_environment():
  settings = _settings(
    noise_kind="bernoulli",
    reward_drift=0.1,
    family_options={"wheel": {"scale": 2.0}},
  )
  # A mix without options of its own has the constructor's.
  feedback, outcome, state = _first_slot(settings, mix="bursty")
  assert set(np.unique(feedback.task_reward)) <= {0.0, 1.0}
  # .2 of the scale, whatever the scale, between bounds of 0 and scale.
  assert float(outcome.expected_reward) == pytest.approx(0.2, abs=1e-6)
  assert state.landscape.landscape.landscape.shape == (4, 3)
  assert float(state.landscape.landscape.landscape.max()) == 2.0
