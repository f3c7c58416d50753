import jax
import numpy as np
import pytest

from tanbr_jax.environments import mixes

V = 5
SLOTS, SEEDS = 4000, 8


def _rollouts(process):
  """States' leaves and mixes, [SEEDS, SLOTS, ...]."""

  @jax.jit
  @jax.vmap
  def run(key):
    def body(state, step_key):
      return process.step(step_key, state), (state, process.mix(state))

    keys = jax.random.split(key, SLOTS)
    return jax.lax.scan(body, process.init(key), keys)[1]

  return jax.tree.map(
    np.asarray, run(jax.random.split(jax.random.key(0), SEEDS))
  )


def _check_simplex(shares):
  assert (shares >= 0).all()
  np.testing.assert_allclose(shares.sum(-1), 1.0, atol=1e-6)


def test_abrupt_jumps_after_geometric_times():
  process = mixes.abrupt(num_tasks=V, rate=0.1, num_phases=64)
  state, shares = _rollouts(process)
  _check_simplex(shares)
  jumps = np.diff(state.slot, axis=1)
  assert set(np.unique(jumps)) == {0, 1}
  # 32,000 slots: standard error sqrt(.1 * .9 / 32,000) = .0017.
  assert jumps.mean() == pytest.approx(0.1, abs=0.01)
  stays = np.concatenate([np.diff(np.flatnonzero(row)) for row in jumps])
  # Geometric: mean 10, P(1) = .1, deviation sqrt(.9) / .1 = 9.49, about 3,200
  # stays.
  assert stays.mean() == pytest.approx(10.0, abs=1.0)
  assert (stays == 1).mean() == pytest.approx(0.1, abs=0.03)
  assert stays.std() == pytest.approx(9.49, rel=0.15)
  moved = (np.diff(shares, axis=1) != 0).any(-1)
  np.testing.assert_array_equal(moved, jumps == 1)


def test_bursty_has_a_base_and_bursts_of_one_task():
  process = mixes.bursty(num_tasks=V, start=0.05, stop=0.2, strength=0.8)
  state, shares = _rollouts(process)
  _check_simplex(shares)
  on = state.is_burst
  # Stationary share .05 / .25 = .2; correlation time 4 slots: about 4,000
  # independent slots, standard error .0063, also of the first slots' law.
  assert on.mean() == pytest.approx(0.2, abs=0.03)
  ends = (on[:, :-1] & ~on[:, 1:]).sum() / on[:, :-1].sum()
  begins = (~on[:, :-1] & on[:, 1:]).sum() / (~on[:, :-1]).sum()
  # 6,400 and 25,600 chances: standard errors .005 and .0014.
  assert ends == pytest.approx(0.2, abs=0.025)
  assert begins == pytest.approx(0.05, abs=0.007)
  base = shares[~on] - state.base[~on]
  assert np.abs(base).max() == 0
  burst = 0.2 * state.base[on] + 0.8 * np.eye(V)[state.task[on]]
  np.testing.assert_allclose(shares[on], burst, atol=1e-6)
  first = ~on[:, :-1] & on[:, 1:]
  tasks = np.bincount(state.task[:, 1:][first], minlength=V) / first.sum()
  # About 1,280 bursts: standard error .011.
  np.testing.assert_allclose(tasks, 1 / V, atol=0.06)


@pytest.mark.parametrize(
  ("build", "message"),
  [
    (lambda: mixes.abrupt(num_tasks=2, rate=0.0), "rate=0.0"),
    (lambda: mixes.abrupt(num_tasks=2, num_phases=0), "num_phases=0"),
    (lambda: mixes.bursty(num_tasks=1), "num_tasks=1"),
    (lambda: mixes.bursty(num_tasks=2, start=0.0), "start=0.0"),
    (lambda: mixes.bursty(num_tasks=2, stop=1.5), "stop=1.5"),
    (lambda: mixes.bursty(num_tasks=2, strength=-1.0), "strength=-1.0"),
  ],
)
def test_bad_arguments_are_one_line_errors(build, message):
  with pytest.raises(ValueError, match=message) as error:
    build()
  assert "\n" not in str(error.value)
