import jax
import numpy as np
import pytest

from tanbr_jax.environments import mixes

V = 5


def _rollout(process, num_slots):
  @jax.jit
  def run(process, key):
    def body(state, step_key):
      return process.step(step_key, state), process.mix(state)

    state = process.init(key)
    keys = jax.random.split(key, num_slots)
    return state, jax.lax.scan(body, state, keys)[1]

  return run(process, jax.random.key(3))


def test_periodic_lingers_at_its_phases_and_comes_again():
  process = mixes.periodic(num_tasks=V, period=30, num_phases=3)
  state, shares = _rollout(process, 70)
  phases, shares = np.asarray(state.phases), np.asarray(shares)
  assert (shares >= 0).all()
  np.testing.assert_allclose(shares.sum(1), 1.0, atol=1e-6)
  for phase in range(3):
    np.testing.assert_allclose(shares[10 * phase], phases[phase], atol=1e-6)
    halfway = (phases[phase] + phases[(phase + 1) % 3]) / 2
    np.testing.assert_allclose(shares[10 * phase + 5], halfway, atol=1e-6)
  np.testing.assert_array_equal(shares[30:], shares[:40])
  # A cosine's steepest step is pi / 2 times the mean step, its first far less.
  steps = np.abs(np.diff(shares[:11], axis=0)).sum(1)
  total = np.abs(phases[1] - phases[0]).sum()
  assert steps.max() < 1.6 * total / 10 and steps[0] < 0.3 * total / 10


@pytest.mark.parametrize(
  ("options", "message"),
  [
    ({"period": 3}, "num_phases=4, period=3"),
    ({"num_phases": 1}, "num_phases must be at least 2, got num_phases=1"),
    ({"concentration": -1.0}, "concentration=-1.0"),
  ],
)
def test_bad_arguments_are_one_line_errors(options, message):
  with pytest.raises(ValueError, match=message) as error:
    mixes.periodic(num_tasks=V, **options)
  assert "\n" not in str(error.value)
