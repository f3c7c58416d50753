"""The averages that weigh each other by prediction, against a NumPy loop."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tanbr_jax.monitor import (
  adaptive_moving_average,
  exponential_moving_average,
)

DECAYS = (0.0, 0.3, 0.6, 0.8, 0.9, 0.96, 0.99)


def _run(monitor, counts):
  def step(state, count):
    return monitor.update(state, count), monitor.estimate(state)

  return np.asarray(jax.lax.scan(step, monitor.init(), jnp.asarray(counts))[1])


def test_it_is_the_likelihoods_weighted_mean_of_the_averages():
  rng = np.random.default_rng(0)
  counts = rng.integers(0, 5, (60, 4)).astype(np.int32)
  counts[rng.random(60) < 0.3] = 0
  estimates = _run(adaptive_moving_average(num_tasks=4, memory=0.9), counts)
  decayed, scores = np.zeros((7, 4)), np.zeros(7)
  for count, estimate in zip(counts, estimates, strict=True):
    expected = np.full(4, 0.25)
    if decayed.any():
      weights = np.exp(scores - scores.max())
      shares = decayed / decayed.sum(1, keepdims=True)
      expected = weights / weights.sum() @ shares
    np.testing.assert_allclose(estimate, expected, rtol=1e-4, atol=1e-6)
    if count.any():
      shares = decayed + 0.1
      shares = shares / shares.sum(1, keepdims=True)
      scores = 0.9 * scores + np.log(shares) @ count
      decayed = np.asarray(DECAYS)[:, None] * decayed + count


def _error(monitor, mixes, counts):
  return np.abs(_run(monitor, counts) - mixes)[20:].sum(-1).mean()


@pytest.mark.parametrize("length", [8, 400])
def test_it_is_near_the_best_decay_without_being_told(length):
  """A new task every `length` slots: the best decay is .3, then .99."""
  rng = np.random.default_rng(1)
  phases = rng.dirichlet(np.full(6, 0.2), 400 // length)
  mixes = np.repeat(phases, length, axis=0)
  counts = np.asarray([rng.multinomial(16, m) for m in mixes], np.int32)
  errors = [
    _error(exponential_moving_average(num_tasks=6, decay=d), mixes, counts)
    for d in DECAYS
  ]
  found = _error(adaptive_moving_average(num_tasks=6), mixes, counts)
  # Weights that move within 50 slots cost less than a neighbouring decay does.
  assert found < 1.1 * min(errors)
  assert found < 0.6 * max(errors)


@pytest.mark.parametrize(
  ("options", "message"),
  [
    ({"memory": 1.0}, "memory=1.0"),
    ({"decays": (0.5, 1.0)}, "decays"),
    ({"decays": ()}, r"at least one, got decays=\(\)"),
  ],
)
def test_bad_numbers_are_named(options, message):
  with pytest.raises(ValueError, match=message):
    adaptive_moving_average(num_tasks=2, **options)
