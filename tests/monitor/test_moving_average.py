"""The moving average against a NumPy loop."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tanbr_jax.monitor import exponential_moving_average


def _run(monitor, counts):
  def step(state, count):
    state = monitor.update(state, count)
    return state, monitor.estimate(state)

  return np.asarray(jax.lax.scan(step, monitor.init(), jnp.asarray(counts))[1])


def test_it_is_the_share_of_decayed_counts():
  rng = np.random.default_rng(0)
  counts = rng.integers(0, 5, (60, 4)).astype(np.int32)
  counts[rng.random(60) < 0.3] = 0
  estimates = _run(exponential_moving_average(num_tasks=4, decay=0.8), counts)
  decayed = np.zeros(4)
  for count, estimate in zip(counts, estimates, strict=True):
    if count.any():
      decayed = 0.8 * decayed + count
    expected = decayed / decayed.sum() if decayed.any() else np.full(4, 0.25)
    np.testing.assert_allclose(estimate, expected, rtol=1e-5, atol=1e-7)


def test_equal_slots_give_adams_average_of_shares():
  rng = np.random.default_rng(1)
  counts = rng.multinomial(64, [0.1, 0.2, 0.7], 30).astype(np.int32)
  estimates = _run(exponential_moving_average(num_tasks=3, decay=0.9), counts)
  average = np.zeros(3)
  for t, count in enumerate(counts):
    average = 0.9 * average + 0.1 * count / 64
    np.testing.assert_allclose(
      estimates[t], average / (1 - 0.9 ** (t + 1)), rtol=1e-5
    )


def test_no_decay_keeps_the_last_slot():
  counts = np.asarray([[8, 0], [1, 3], [0, 0]], np.int32)
  estimates = _run(exponential_moving_average(num_tasks=2, decay=0.0), counts)
  np.testing.assert_array_equal(estimates, [[1, 0], [0.25, 0.75], [0.25, 0.75]])


def test_decay_is_swept_with_vmap():
  counts = np.asarray([[8, 0], [1, 3]], np.int32)

  def last(decay):
    monitor = exponential_moving_average(num_tasks=2, decay=decay)
    state = monitor.init()
    for count in counts:
      state = monitor.update(state, jnp.asarray(count))
    return monitor.estimate(state)

  # 8 d + 1 of 8 d + 4 requests are of task 0.
  mixes = jax.vmap(last)(jnp.asarray([0.0, 0.5], jnp.float32))
  np.testing.assert_allclose(mixes[:, 0], [1 / 4, 5 / 8], rtol=1e-6)


@pytest.mark.parametrize("decay", [-0.1, 1.0, float("nan")])
def test_bad_decay_is_named(decay):
  with pytest.raises(ValueError, match=f"decay={decay}"):
    exponential_moving_average(num_tasks=2, decay=decay)
