import jax
import jax.numpy as jnp
import numpy as np
import pytest
import test_sliding_window as slots_of
from unwrapped import unwrapped

from tanbr_jax import bandits
from tanbr_jax.bandits import Bandit, Context, Feedback

E, V, T = slots_of.E, slots_of.V, slots_of.T
DELAY = 3


def test_the_state_is_that_of_delay_slots_before():
  plain = unwrapped(bandits.ucb1(num_experts=E, num_tasks=V))
  wrapped = bandits.delayed(plain, delay=DELAY, num_tasks=V)
  slots = slots_of.history()
  play = jax.jit(slots_of.run)
  late, now = play(wrapped, slots).bandit, play(plain, slots)
  start = plain.init(jax.random.key(1))
  jax.tree.map(
    lambda x, y: slots_of.assert_close(x[DELAY:], y[:-DELAY]), late, now
  )
  for t in range(DELAY):
    jax.tree.map(
      lambda x, y, i=t: np.testing.assert_array_equal(x[i], y), late, start
    )


def test_plain_functions_can_be_wrapped():
  plain = unwrapped(bandits.ucb1(num_experts=E, num_tasks=V))
  *parts, needs = plain
  functions = Bandit(*(lambda *args, f=f: f(*args) for f in parts), needs)
  wrapped = bandits.delayed(functions, delay=DELAY, num_tasks=V)
  slots = slots_of.history()
  found = jax.jit(slots_of.run)(wrapped, slots).bandit
  expected = jax.jit(slots_of.run)(plain, slots)
  slots_of.assert_close(found.mean[-1], expected.mean[-1 - DELAY])


def test_signals_wait_with_the_rewards():
  """The gradient and the usage of a slot are learnt from D slots later."""
  rng = np.random.default_rng(0)
  signals = rng.dirichlet(np.ones(E), T).astype(np.float32)
  for plain in (
    bandits.exponentiated_gradient(num_experts=E, num_tasks=V),
    bandits.follow_usage(num_experts=E, num_tasks=V),
  ):
    wrapped = bandits.delayed(plain, delay=DELAY, num_tasks=V)
    late, now = (play_signals(bandit, signals) for bandit in (wrapped, plain))
    # The same slots in the same order, by two programs: rounding alone.
    np.testing.assert_allclose(late[DELAY:], now[:-DELAY], atol=1e-6)
    np.testing.assert_allclose(late[:DELAY], 1 / E, atol=1e-6)
    assert np.abs(np.diff(now, axis=0)).max() > 1e-3


@jax.jit
def play_signals(bandit, signals):
  """Weights [T, E] where gradient and usage are the same [T, E]."""
  key = jax.random.key(0)
  context = Context(jnp.full(V, 1 / V, jnp.float32))
  unseen = jnp.zeros(V, jnp.float32), jnp.zeros(V, jnp.int32)

  def step(state, signal):
    decision = bandit.select(key, state, context)
    told = Feedback(*unseen, signal, signal, jnp.int32(1))
    state = bandit.update(key, state, context, decision, told)
    return state, decision.merge_weights

  return jax.lax.scan(step, bandit.init(key), signals)[1]


@pytest.mark.parametrize(
  "options, message",
  [
    ({"delay": 0, "num_tasks": V}, "delay=0"),
    ({"delay": 2, "num_tasks": 0}, "num_tasks=0"),
  ],
)
def test_bad_arguments(options, message):
  with pytest.raises(ValueError, match=message):
    bandits.delayed(bandits.uniform(num_experts=E, num_tasks=V), **options)
