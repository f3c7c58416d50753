"""The Count-Min Sketch against exact counts and a NumPy sketch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tanbr_jax.monitor import count_min_sketch, sketch

NUM_TASKS, NUM_SLOTS, WINDOW = 40, 30, 7


@pytest.fixture(scope="module")
def counts():
  rng = np.random.default_rng(0)
  rates = rng.pareto(1.0, NUM_TASKS)
  counts = rng.poisson(rates, (NUM_SLOTS, NUM_TASKS)).astype(np.int32)
  counts[[3, 4, 20]] = 0
  return counts


def _states(monitor, counts):
  def step(state, count):
    state = monitor.update(state, count)
    return state, (state, monitor.estimate(state))

  return jax.lax.scan(step, monitor.init(), jnp.asarray(counts))[1]


def _window(counts, t):
  """Exact counts of the last WINDOW slots that had requests."""
  seen = [count for count in counts[: t + 1] if count.any()]
  return np.sum(seen[-WINDOW:], axis=0)


def _numpy_sketch(exact, buckets, width):
  table = np.zeros((len(buckets), width), int)
  for row, hashes in enumerate(buckets):
    for task, bucket in enumerate(hashes):
      table[row, bucket] += exact[task]
  return np.min(
    [table[row, hashes] for row, hashes in enumerate(buckets)], axis=0
  )


@pytest.mark.parametrize(("width", "depth"), [(8, 3), (1, 1)])
def test_it_matches_numpy_and_never_counts_too_little(counts, width, depth):
  sizes = dict(num_tasks=NUM_TASKS, width=width, depth=depth, seed=5)
  buckets = sketch.hash_buckets(**sizes)
  monitor = count_min_sketch(**sizes, window=WINDOW)
  states, estimates = _states(monitor, counts)
  window_counts = jax.vmap(sketch.window_counts, in_axes=(None, 0))(
    jnp.asarray(buckets), states
  )
  for t in range(NUM_SLOTS):
    exact = _window(counts, t)
    expected = _numpy_sketch(exact, buckets, width)
    np.testing.assert_array_equal(window_counts[t], expected)
    assert np.all(np.asarray(window_counts[t]) >= exact)
    np.testing.assert_allclose(
      estimates[t], expected / expected.sum(), rtol=1e-6
    )


def test_a_wide_sketch_is_exact(counts):
  # 40 tasks in 4,096 counters: a task that collides in all of 4 rows has
  # probability below 40 * (40 / 4096)^4 = 4e-7.
  monitor = count_min_sketch(
    num_tasks=NUM_TASKS, width=4096, depth=4, window=WINDOW
  )
  _, estimates = _states(monitor, counts)
  for t in range(NUM_SLOTS):
    exact = _window(counts, t)
    np.testing.assert_allclose(estimates[t], exact / exact.sum(), rtol=1e-6)


def test_error_bound_of_the_paper(counts):
  exact, width, depth = counts.sum(axis=0), 16, 3
  too_large = []
  for seed in range(100):
    buckets = sketch.hash_buckets(
      num_tasks=NUM_TASKS, width=width, depth=depth, seed=seed
    )
    excess = _numpy_sketch(exact, buckets, width) - exact
    too_large.append(excess > np.e / width * exact.sum())
  # Theorem 1: at most exp(-3) = 5 % of the answers.
  assert np.mean(too_large) <= np.exp(-depth)


def test_hashes_are_pairwise_independent():
  # Two tasks meet in a row with probability 1 / width: 4,000 rows, width 16,
  # deviation sqrt(1/16 * 15/16 / 4000) = 0.004; four of them.
  buckets = sketch.hash_buckets(num_tasks=6, width=16, depth=4000, seed=1)
  for i in range(6):
    for j in range(i):
      meet = np.mean(buckets[:, i] == buckets[:, j])
      np.testing.assert_allclose(meet, 1 / 16, atol=0.016)


@pytest.mark.parametrize("name", ["width", "depth", "window"])
def test_bad_sizes_are_named(name):
  with pytest.raises(ValueError, match=f"{name}=0"):
    count_min_sketch(num_tasks=2, **{name: 0})
