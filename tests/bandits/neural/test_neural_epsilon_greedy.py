"""How often epsilon-greedy explores, and what it plays otherwise."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tanbr_jax.bandits import Context, neural_epsilon_greedy

E, V, DRAWS = 3, 2, 4000
MIX = jnp.asarray([0.3, 0.7], jnp.float32)


def select_often(**options):
  bandit = neural_epsilon_greedy(
    num_experts=E,
    num_tasks=V,
    candidates="grid",
    num_candidates=6,
    hidden=(8,),
    initialisation="fan_in",
    replay_capacity=8,
    **options,
  )
  state = bandit.init(jax.random.key(0))
  # As after 15 slots: (1 + 15)^-.25 = 1/2.
  model = state.model._replace(num_slots=jnp.int32(15))
  state = state._replace(model=model)
  keys = jax.random.split(jax.random.key(1), DRAWS)
  select = jax.jit(jax.vmap(bandit.select, (0, None, None)))
  structure = bandit.select.args[1].model.init.args[0]
  points, _ = bandit.select.args[1].source.propose(keys[0], ())
  predict = jax.vmap(structure.network.apply, (None, 0))
  values = predict(model.params, points) @ MIX
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
    ({"preset": "none"}, "preset='none'"),
  ],
)
def test_bad_input(options, words):
  with pytest.raises(ValueError, match=words):
    neural_epsilon_greedy(num_experts=E, num_tasks=V, **options)
