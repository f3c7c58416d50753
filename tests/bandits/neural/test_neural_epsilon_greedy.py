"""How often epsilon-greedy explores, and what it plays otherwise."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial
from unwrapped import unwrapped

from tanbr_jax.bandits import Context, neural_epsilon_greedy
from tanbr_jax.bandits.neural import reward_network

E, V, DRAWS = 3, 2, 4000
MIX = jnp.asarray([0.3, 0.7], jnp.float32)


POINTS = np.random.default_rng(2).dirichlet(np.ones(E), 6).astype(np.float32)


def propose(key, state):
  return jnp.asarray(POINTS), jnp.ones(6, bool)


def select_often(**options):
  """Decisions of many keys on the same six candidates, and their values."""
  bandit = unwrapped(
    neural_epsilon_greedy(
      num_experts=E, num_tasks=V, hidden=(8,), replay_capacity=8, **options
    )
  )
  model, source, *rest = bandit.select.args
  source = source._replace(propose=propose)
  state = bandit.init(jax.random.key(0))
  # A network that is not zero, as after 15 slots: (1 + 15)^-.25 = 1/2.
  learner = model.init.args[0]
  replay = state.model.replay._replace(num_slots=jnp.int32(15))
  params = reward_network.fan_in_init(
    jax.random.key(3), learner.network, num_experts=E
  )
  start = state.model._replace(params=params, replay=replay)
  state = state._replace(model=start)
  keys = jax.random.split(jax.random.key(1), DRAWS)
  select = Partial(bandit.select.func, model, source, *rest)
  select = jax.jit(jax.vmap(select, (0, None, None)))
  values = jax.vmap(learner.network.apply, (None, 0))(params, POINTS) @ MIX
  return jax.tree.map(np.asarray, select(keys, state, Context(MIX)).aux), values


def test_it_explores_with_the_falling_probability_and_else_plays_the_best():
  aux, values = select_often(epsilon=0.6, decay=0.25)
  # .6 / 2 = .3 with a standard error of .0072.
  np.testing.assert_allclose(aux["explored"].mean(), 0.3, atol=0.03)
  greedy = aux["candidate"][aux["explored"] == 0]
  assert set(greedy.tolist()) == {int(np.argmax(values))}
  drawn = np.bincount(aux["candidate"][aux["explored"] == 1], minlength=6)
  # 1,200 over six candidates: 200 each, deviation 13.
  assert np.all(abs(drawn - drawn.mean()) < 5 * 13)


def test_without_epsilon_it_is_greedy():
  aux, _ = select_often(epsilon=0.0)
  assert not aux["explored"].any()
  assert len(set(aux["candidate"].tolist())) == 1


@pytest.mark.parametrize(
  "options, words",
  [
    ({"epsilon": 1.5}, "epsilon=1.5"),
    ({"decay": -1.0}, "decay=-1.0"),
    ({"candidates": "none"}, "candidates='none'"),
  ],
)
def test_bad_input(options, words):
  with pytest.raises(ValueError, match=words):
    neural_epsilon_greedy(num_experts=E, num_tasks=V, **options)
