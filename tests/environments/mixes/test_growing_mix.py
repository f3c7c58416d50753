import jax
import numpy as np
import pytest

from tanbr_jax.environments import mixes

V = 5


def _shares(process, num_slots):
  @jax.jit
  def run(process, key):
    def body(state, step_key):
      return process.step(step_key, state), process.mix(state)

    keys = jax.random.split(key, num_slots)
    return jax.lax.scan(body, process.init(key), keys)[1]

  return np.asarray(run(process, jax.random.key(3)))


def test_tasks_come_one_after_the_other():
  found = _shares(mixes.growing(num_tasks=V, first=2, every=10), 60)
  np.testing.assert_allclose(found.sum(1), 1.0, atol=1e-6)
  # Two at first, a third from slot 10, all five from slot 30 on.
  arrivals = [np.argmax(found[:, task] > 0) for task in range(V)]
  np.testing.assert_array_equal(arrivals, [0, 0, 10, 20, 30])
  for task, arrival in enumerate(arrivals):
    assert (found[arrival:, task] > 0).all()


def test_among_those_that_are_there_the_mix_is_that_of_drift():
  grown = _shares(mixes.growing(num_tasks=V, first=3, every=40), 40)
  drifted = _shares(mixes.drift(num_tasks=V), 40)[:, :3]
  wanted = drifted / drifted.sum(1, keepdims=True)
  np.testing.assert_allclose(grown[:, :3], wanted, rtol=1e-4)


@pytest.mark.parametrize("name", ["first", "every"])
def test_bad_arguments_are_named(name):
  with pytest.raises(ValueError, match=f"{name} .*got {name}=0"):
    mixes.growing(num_tasks=V, **{name: 0})
