"""Recursive ridge regression against the float64 closed form."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tanbr_jax.regression import ridge

NUM_FEATURES, NUM_TASKS, NUM_UPDATES = 12, 3, 30_000


@pytest.fixture(scope="module")
def stream():
  """Features, noisy rewards and counts; one arm is played half of the time."""
  rng = np.random.default_rng(0)
  rows = rng.standard_normal((NUM_UPDATES, NUM_FEATURES))
  rows[:, 0] = 1.0
  rows[rng.random(NUM_UPDATES) < 0.5] = rows[0]
  truth = rng.standard_normal((NUM_FEATURES, NUM_TASKS))
  rewards = rows @ truth + 0.1 * rng.standard_normal((NUM_UPDATES, NUM_TASKS))
  counts = rng.integers(0, 4, (NUM_UPDATES, NUM_TASKS))
  return (
    jnp.asarray(rows, jnp.float32),
    jnp.asarray(rewards, jnp.float32),
    jnp.asarray(counts, jnp.int32),
  )


def _run(model, rows, rewards, counts):
  def step(state, slot):
    return model.update(state, *slot), None

  scan = jax.jit(
    lambda model, slots: jax.lax.scan(step, model.init(), slots)[0]
  )
  return scan(model, (rows, rewards, counts))


def _closed_form(rows, rewards, weights, regularisation):
  """W [P, V] and A [V, P, P] of every task, in float64."""
  rows, rewards = np.asarray(rows, float), np.asarray(rewards, float)
  covariances, solutions = [], []
  for v in range(rewards.shape[1]):
    w = np.asarray(weights[:, v], float)
    gram = np.diag(np.broadcast_to(regularisation, rows.shape[1]).astype(float))
    covariances.append(np.linalg.inv(gram + (rows.T * w) @ rows))
    solutions.append(covariances[-1] @ ((rows.T * w) @ rewards[:, v]))
  return np.stack(solutions, axis=1), np.stack(covariances)


def _check(model, state, rows, solution, covariance):
  # Measured 1e-7 on both; a few float32 roundings of numbers about 1.
  np.testing.assert_allclose(state.weights, solution, atol=2e-6)
  for probe in (rows[0], rows[1], rows[-1]):
    np.testing.assert_allclose(
      model.predict(state, probe), np.asarray(probe) @ solution, atol=1e-5
    )
    expected = np.einsum("p,vpq,q->v", probe, covariance, probe)
    np.testing.assert_allclose(
      model.variance(state, probe), expected, rtol=1e-5
    )


@pytest.mark.parametrize("regularisation", [1e-4, "a feature's own"])
def test_posterior_is_the_closed_form_of_what_each_task_saw(
  stream, regularisation
):
  rows, rewards, counts = stream
  precision = regularisation
  if precision != 1e-4:
    precision = np.linspace(0.1, 1.0, NUM_FEATURES).astype(np.float32)
  model = ridge.per_task(
    num_features=NUM_FEATURES, num_tasks=NUM_TASKS, regularisation=precision
  )
  state = _run(model, rows, rewards, counts)
  expected = _closed_form(rows, rewards, counts, precision)
  _check(model, state, rows, *expected)


def _bits(tree):
  return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(tree)]


def _of_task(state, task):
  return [
    state.root.high[task],
    state.root.low[task],
    state.weights[:, task],
    state.weights_low[:, task],
  ]


def test_an_unseen_task_stays(stream):
  rows, rewards, counts = (array[:50] for array in stream)
  model = ridge.per_task(num_features=NUM_FEATURES, num_tasks=NUM_TASKS)
  state = _run(model, rows, rewards, counts)
  count = jnp.asarray([2, 0, 1], jnp.int32)
  reward = jnp.asarray([1.0, jnp.nan, 0.5], jnp.float32)
  after = jax.jit(model.update)(state, rows[3], reward, count)
  for task, same in enumerate([False, True, False]):
    before, now = (_of_task(s, task) for s in (state, after))
    for old, new in zip(before, now, strict=True):
      assert (_bits(old) == _bits(new)) == same
      assert np.all(np.isfinite(new))


def test_bad_input_is_named():
  with pytest.raises(ValueError, match="num_features=0"):
    ridge.per_task(num_features=0, num_tasks=1)
  with pytest.raises(ValueError, match="num_tasks=0"):
    ridge.per_task(num_features=1, num_tasks=0)
  with pytest.raises(ValueError, match=r"regularisation=0\.0"):
    ridge.per_task(num_features=1, num_tasks=1, regularisation=0.0)
