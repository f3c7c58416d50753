import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

from tanbr_jax.environments import mixes

V = 5


def _rollout(process, key, num_slots):
  def body(state, step_key):
    return process.step(step_key, state), process.mix(state)

  init_key, scan_key = jax.random.split(key)
  keys = jax.random.split(scan_key, num_slots)
  return jax.lax.scan(body, process.init(init_key), keys)[1]


@functools.partial(jax.jit, static_argnums=2)
def _roll(process, keys, num_slots):
  return jax.vmap(lambda key: _rollout(process, key, num_slots))(keys)


def _rollouts(process, *, num_slots, num_seeds):
  keys = jax.random.split(jax.random.key(0), num_seeds)
  return np.asarray(_roll(process, keys, num_slots))


# Equal shapes in several tests, so that each process compiles once.
FIXED = {"num_slots": 6, "num_seeds": 4}
DRIFT = {"num_slots": 4000, "num_seeds": 8}
PIECEWISE = {"num_slots": 15, "num_seeds": 4}
PHASES = {"length": 3, "num_phases": 4}


@pytest.mark.parametrize(
  ("name", "options", "shape"),
  [
    ("fixed", {}, FIXED),
    ("drift", {}, DRIFT),
    ("piecewise", PHASES, PIECEWISE),
  ],
)
def test_every_mix_is_on_the_simplex(name, options, shape):
  shares = _rollouts(mixes.create(name, num_tasks=V, options=options), **shape)
  assert shares.shape == (shape["num_seeds"], shape["num_slots"], V)
  assert (shares >= 0).all()
  # Five float32 shares: rounding of a few ulp.
  np.testing.assert_allclose(shares.sum(-1), 1.0, atol=1e-6)


def test_fixed_stays_and_differs_between_seeds():
  shares = _rollouts(mixes.fixed(num_tasks=V), **FIXED)
  np.testing.assert_array_equal(shares, shares[:, :1].repeat(6, 1))
  assert len(np.unique(shares[:, 0, 0])) == 4
  given = jnp.array([0.5, 0.25, 0.125, 0.125, 0.0])
  shares = _rollouts(mixes.fixed(given), **FIXED)
  np.testing.assert_array_equal(shares, np.broadcast_to(given, (4, 6, V)))


def test_drift_is_an_ornstein_uhlenbeck_process():
  rate, concentration = 0.1, 0.5
  process = mixes.drift(num_tasks=V, rate=rate, concentration=concentration)
  shares = _rollouts(process, **DRIFT)
  # Softmax loses the common shift: differences of log shares are z_1 - z_0,
  # an OU process of variance 2 scale^2 and lag-1 correlation 1 - rate.
  difference = np.log(shares[..., 1]) - np.log(shares[..., 0])
  variance = 2 * scipy.special.polygamma(1, concentration)
  # 32,000 slots with correlation time 10: about 1,600 independent values, so
  # a relative standard error of sqrt(2 / 1600) = 3.5 % in the variance.
  assert np.var(difference) == pytest.approx(variance, rel=0.12)
  lagged = np.corrcoef(difference[:, :-1].ravel(), difference[:, 1:].ravel())[
    0, 1
  ]
  assert lagged == pytest.approx(1 - rate, abs=0.01)


def test_drift_visits_concentrated_mixes():
  process = mixes.drift(num_tasks=V, rate=0.5)
  shares = np.sort(_rollouts(process, **DRIFT), -1)
  assert np.median(shares[..., -2:].sum(-1)) > 0.9
  assert (shares[..., -1] > 0.8).mean() > 0.3


def test_piecewise_changes_every_length_slots_and_repeats():
  process = mixes.piecewise(num_tasks=V, **PHASES)
  shares = _rollouts(process, **PIECEWISE)
  phases = shares.reshape(4, 5, 3, V)
  np.testing.assert_array_equal(phases, phases[:, :, :1].repeat(3, 2))
  np.testing.assert_array_equal(phases[:, 4], phases[:, 0])
  assert len(np.unique(phases[:, :4, 0, 0])) == 16


def test_piecewise_draws_a_dirichlet():
  process = mixes.piecewise(num_tasks=V, concentration=0.3, num_phases=4000)
  phases = jax.jit(process.init)(jax.random.key(1)).phases
  phases = np.asarray(phases, np.float64)
  # Var of a share: (1/V)(1 - 1/V) / (V a + 1) = .16 / 2.5 = .064.
  np.testing.assert_allclose(phases.mean(0), 0.2, atol=0.02)
  np.testing.assert_allclose(phases.var(0), 0.064, rtol=0.1)


@pytest.mark.parametrize(
  ("build", "message"),
  [
    (lambda: mixes.create("walk", num_tasks=3), "got task_mix='walk'"),
    (lambda: mixes.fixed(), "neither"),
    (lambda: mixes.fixed(jnp.array([0.5, 0.4])), "simplex"),
    (lambda: mixes.fixed(jnp.array([1.5, -0.5])), "simplex"),
    (lambda: mixes.fixed(jnp.ones(2) / 2, num_tasks=3), "num_tasks=3"),
    (lambda: mixes.drift(num_tasks=1), "num_tasks=1"),
    (lambda: mixes.drift(num_tasks=2, rate=0.0), "rate=0.0"),
    (lambda: mixes.drift(num_tasks=2, concentration=0.0), "0.0"),
    (lambda: mixes.piecewise(num_tasks=2, length=0), "length=0"),
  ],
)
def test_bad_arguments_are_one_line_errors(build, message):
  with pytest.raises(ValueError, match=message) as error:
    build()
  assert "\n" not in str(error.value)
