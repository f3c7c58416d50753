"""Confidence forms against float64, after few and after many updates."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tanbr_jax.regression import confidence

NUM_FEATURES = 16
REGULARISATIONS = (1.0, 1e-2, 1e-4)


def _unit(rng, num):
  rows = rng.standard_normal((num, NUM_FEATURES))
  return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def _histories(rng, num):
  """What an arm's history may look like, [scenario, update, P] float32."""
  arms = _unit(rng, 8)
  same = np.repeat(arms[:1], num, axis=0)
  few = arms[rng.integers(0, 8, num)]
  half = _unit(rng, num)
  half[rng.random(num) < 0.5] = arms[0]
  rare = same.copy()
  rare[rng.choice(num, 30, replace=False)] = _unit(rng, 30)
  relu = 0.3 * np.maximum(rng.standard_normal((num, NUM_FEATURES)), 0)
  relu[rng.random(num) < 0.9] = relu[0]
  return np.stack([same, few, half, rare, relu]).astype(np.float32)


def _run(form, history):
  def step(state, features):
    return form.update(state, features), None

  return jax.lax.scan(step, form.init(), history)[0]


def _probes(rng, history):
  return np.concatenate([history[:1], history[-1:], _unit(rng, 6)]).astype(
    np.float32
  )


def _gram(history, regularisation):
  history = history.astype(np.float64)
  return regularisation * np.eye(NUM_FEATURES) + history.T @ history


def _forms(make):
  # The hyper-parameter is a leaf: a form can be built inside vmap and jit.
  return jax.vmap(
    lambda value: make(num_features=NUM_FEATURES, regularisation=value)
  )(jnp.asarray(REGULARISATIONS, jnp.float32))


@pytest.fixture(
  scope="module",
  params=[3_000, pytest.param(100_000, marks=pytest.mark.slow)],
)
def long_runs(request):
  """Histories, probes and the forms' answers after so many updates."""
  rng = np.random.default_rng(0)
  histories = _histories(rng, request.param)
  probes = np.stack([_probes(rng, history) for history in histories])

  @jax.jit
  def answers(form, history, probes):
    state = _run(form, history)
    return jax.vmap(form.quadratic_form, in_axes=(None, 0))(state, probes)

  sweep = jax.vmap(answers, in_axes=(0, None, None))
  sweep = jax.vmap(sweep, in_axes=(None, 0, 0))
  full = sweep(_forms(confidence.full), histories, probes)
  diagonal = sweep(_forms(confidence.diagonal), histories, probes)
  return histories, probes, np.asarray(full), np.asarray(diagonal)


@pytest.mark.parametrize("index", range(len(REGULARISATIONS)))
def test_full_is_right_after_many_updates(long_runs, index):
  histories, probes, full, _ = long_runs
  regularisation = np.float64(np.float32(REGULARISATIONS[index]))
  for history, probe, answer in zip(
    histories, probes, full[:, index], strict=True
  ):
    probe = probe.astype(np.float64)
    gram = _gram(history, regularisation)
    expected = np.sum(probe.T * np.linalg.solve(gram, probe.T), axis=0)
    # Measured: 5e-4 for 100,000 of one arm at 1e-4, below 1e-4 elsewhere. One
    # rounding of S'g costs 6e-8 * sqrt(condition) = 6e-8 * 3e4 = 2e-3 there.
    np.testing.assert_allclose(answer, expected, rtol=2e-3)


@pytest.mark.parametrize("index", range(len(REGULARISATIONS)))
def test_diagonal_is_right_after_many_updates(long_runs, index):
  histories, probes, _, diagonal = long_runs
  regularisation = np.float64(np.float32(REGULARISATIONS[index]))
  for history, probe, answer in zip(
    histories, probes, diagonal[:, index], strict=True
  ):
    z = np.diag(_gram(history, regularisation))
    expected = np.sum(probe.astype(np.float64) ** 2 / z, axis=1)
    # 16 float32 terms, each with a few roundings of 6e-8.
    np.testing.assert_allclose(answer, expected, rtol=1e-6)


@pytest.mark.parametrize("make", [confidence.full, confidence.diagonal])
def test_weighted_updates_match_a_float64_loop(make):
  rng = np.random.default_rng(1)
  precision = rng.uniform(0.5, 2.0, NUM_FEATURES).astype(np.float32)
  form = make(num_features=NUM_FEATURES, regularisation=precision)
  state, z = form.init(), np.diag(precision.astype(np.float64))
  for row in _unit(rng, 20).astype(np.float32):
    weight = np.float32(rng.uniform(0, 3))
    state = form.update(state, row, weight)
    z += weight * np.outer(row, row).astype(np.float64)
  if make is confidence.diagonal:
    z = np.diag(np.diag(z))
  probe = _unit(rng, 1)[0].astype(np.float32)
  # Well conditioned; 20 updates of roundings of 6e-8.
  np.testing.assert_allclose(
    form.quadratic_form(state, probe),
    probe @ np.linalg.inv(z) @ probe,
    rtol=1e-5,
  )


@pytest.mark.parametrize("make", [confidence.full, confidence.diagonal])
@pytest.mark.parametrize("value", [1.0, np.nan])
def test_weight_zero_keeps_the_bits(make, value):
  form = make(num_features=4, regularisation=1e-2)
  state = form.update(form.init(), jnp.arange(4, dtype=jnp.float32))
  features = jnp.full((4,), value, jnp.float32)
  after = jax.jit(form.update)(state, features, 0.0)
  for old, new in zip(
    jax.tree.leaves(state), jax.tree.leaves(after), strict=True
  ):
    assert np.asarray(old).tobytes() == np.asarray(new).tobytes()


def test_a_form_is_a_pytree_and_a_new_value_does_not_compile_again():
  traces = []

  @jax.jit
  def start(form):
    traces.append(1)
    return form.quadratic_form(form.init(), jnp.ones((4,), jnp.float32))

  one = start(confidence.full(num_features=4, regularisation=1.0))
  half = start(confidence.full(num_features=4, regularisation=0.5))
  # 1'1 / lambda with four ones.
  np.testing.assert_allclose([one, half], [4.0, 8.0], rtol=1e-6)
  assert len(traces) == 1


@pytest.mark.parametrize("make", [confidence.full, confidence.diagonal])
def test_bad_input_is_named(make):
  with pytest.raises(ValueError, match="num_features=0"):
    make(num_features=0)
  with pytest.raises(ValueError, match=r"regularisation=-1\.0"):
    make(num_features=2, regularisation=-1.0)
  with pytest.raises(ValueError, match="regularisation.*shape"):
    make(num_features=2, regularisation=np.ones(3))
