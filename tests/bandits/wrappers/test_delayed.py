import jax
import numpy as np
import pytest
import test_sliding_window as slots_of

from tanbr_jax import bandits
from tanbr_jax.bandits import Bandit

E, V, T = slots_of.E, slots_of.V, slots_of.T
DELAY = 3


def test_the_state_is_that_of_delay_slots_before():
  plain = bandits.ucb1(num_experts=E, num_tasks=V)
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
  plain = bandits.ucb1(num_experts=E, num_tasks=V)
  functions = Bandit(*(lambda *args, f=f: f(*args) for f in plain))
  wrapped = bandits.delayed(functions, delay=DELAY, num_tasks=V)
  slots = slots_of.history()
  found = jax.jit(slots_of.run)(wrapped, slots).bandit
  expected = jax.jit(slots_of.run)(plain, slots)
  slots_of.assert_close(found.mean[-1], expected.mean[-1 - DELAY])


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
