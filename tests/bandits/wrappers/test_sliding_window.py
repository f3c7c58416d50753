import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tanbr_jax import bandits
from tanbr_jax.bandits import Context, Decision, Feedback

E, V, T, WINDOW = 3, 2, 20, 8


def history():
  rng = np.random.default_rng(0)
  mix = rng.dirichlet(np.ones(V), T).astype(np.float32)
  arms = rng.integers(0, E, T).astype(np.int32)
  reward = rng.normal(size=(T, V)).astype(np.float32)
  count = rng.integers(0, 3, (T, V)).astype(np.int32)
  weights = np.eye(E, dtype=np.float32)[arms]
  read = ("predicted_reward", "exploration_bonus")
  aux = {"arm": jnp.asarray(arms)} | dict.fromkeys(read, jnp.zeros(T))
  return (
    Context(jnp.asarray(mix)),
    Decision(jnp.asarray(weights), aux),
    Feedback(jnp.asarray(reward), jnp.asarray(count)),
  )


def run(bandit, slots):
  """The states [T] after each slot."""

  def step(state, slot):
    state = bandit.update(jax.random.key(0), state, *slot)
    return state, state

  return jax.lax.scan(step, bandit.init(jax.random.key(1)), slots)[1]


def assert_close(found, expected):
  """Equal up to the last bits, in which two programs differ."""
  np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_the_copy_that_decides_is_one_that_saw_the_window_alone():
  """Its state is that of a fresh bandit, trained on those slots."""
  plain = bandits.ucb1(num_experts=E, num_tasks=V)
  wrapped = bandits.sliding_window(plain, window=WINDOW)
  slots = history()
  states = jax.jit(run)(wrapped, slots)
  rerun = jax.jit(run)
  half = WINDOW // 2
  # Rolled, so that all have one length, hence one program.
  alone = {
    start: rerun(
      plain, jax.tree.map(lambda x, s=start: np.roll(x, -s, 0), slots)
    )
    for start in range(0, T, half)
  }
  alone = jax.device_get(alone)
  older = jax.device_get(states.older)
  seen = []
  for t in range(1, T + 1):
    start = max(0, (t // half - 1) * half)
    seen.append(t - start)
    expected = jax.tree.map(lambda x, i=t - start - 1: x[i], alone[start])
    found = jax.tree.map(lambda x, i=t - 1: x[i], older)
    jax.tree.map(assert_close, found, expected)
  assert min(seen[half - 1 :]) == half and max(seen) == WINDOW - 1
  # Hence it decides as that bandit.
  key, context = jax.random.key(2), Context(jnp.array([0.5, 0.5]))
  last = jax.tree.map(lambda x: x[-1], states)
  fresh = jax.tree.map(lambda x: x[half - 1], alone[T - half])
  np.testing.assert_array_equal(
    wrapped.select(key, last, context).merge_weights,
    plain.select(key, fresh, context).merge_weights,
  )


@pytest.mark.parametrize("window", [0, 3])
def test_bad_windows(window):
  bandit = bandits.ucb1(num_experts=E, num_tasks=V)
  message = f"window must be .*, got window={window}"
  with pytest.raises(ValueError, match=message):
    bandits.sliding_window(bandit, window=window)


def test_trees_are_refused():
  bandit = bandits.sliding_window(
    bandits.tanbr(num_experts=E, num_tasks=V), window=4
  )
  with pytest.raises(ValueError, match="leaves of its own tree: aux=.*'leaf'"):
    key, context = jax.random.key(0), Context(jnp.ones(V) / V)
    state = jax.eval_shape(bandit.init, key)
    jax.eval_shape(bandit.select, key, state, context)
