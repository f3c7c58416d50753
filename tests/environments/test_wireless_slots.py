import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from tanbr_jax import models, moe
from tanbr_jax.environments import mixes, wireless_slots
from tanbr_jax.moe.seam import MoeInput
from tanbr_jax.wireless import reroutes

pytestmark = pytest.mark.slow

B, C, S = 3, 2, 6
MIX = jnp.array([0.6, 0.4, 0.0])
LOCAL_J = 1e-3


@pytest.fixture(scope="module")
def radio(tiny):
  config = tiny.model.config
  layers, experts = config.num_layers, config.num_experts
  rng = np.random.default_rng(0)
  steps = rng.uniform(0.01, 0.02, (C, layers, experts, S * config.num_selected))
  steps = np.sort(steps, axis=-1).cumsum(axis=-1)
  energy = np.pad(steps, ((0, 0),) * 3 + ((1, 0),))
  energy[0, 0, 1, 5:] = np.inf  # four pairs at most
  table = rng.uniform(0.2, 1.0, (layers, experts, experts + 1))
  return wireless_slots.Radio(
    jnp.asarray(energy, jnp.float32),
    jnp.asarray(table, jnp.float32),
    jnp.float32(LOCAL_J),
  )


@pytest.fixture(scope="module")
def make(tiny, radio):
  def environment(**options):
    return wireless_slots.wireless_slots(
      tiny.model,
      tiny.params,
      tiny.text,
      radio,
      task_mix=mixes.fixed(MIX),
      requests_per_slot=B,
      context=S,
      **options,
    )

  return environment


def parts(environment):
  """The settings and arrays that a step has."""
  return environment.step.args[:2]


@pytest.fixture(scope="module")
def windows(tiny):
  return tiny.text.tokens[0, : B * (S + 1)].reshape(B, S + 1)


serve = jax.jit(wireless_slots.serve)
REALISATIONS = jnp.array([0, 1, 0], jnp.int32)


def test_merging_alone_is_the_merged_model_at_local_energy(tiny, make, windows):
  weights = jnp.array([0.5, 0.3, 0.2], jnp.float32)
  settings, arrays = parts(make(act="merge_weights", share=np.inf))
  reward, accuracy, joules = serve(
    settings, arrays, windows, REALISATIONS, weights
  )
  dense, merged = models.merge(tiny.model, tiny.params, weights)
  expected = models.score(dense, merged, windows).accuracy
  np.testing.assert_allclose(accuracy, expected, atol=1e-6)
  # One state a token in each layer, at the user's.
  layers = tiny.model.config.num_layers
  np.testing.assert_allclose(joules, layers * LOCAL_J, rtol=1e-5)
  np.testing.assert_allclose(reward, accuracy - 10.0 * joules, rtol=1e-5)


def test_without_a_budget_it_is_the_routed_model_less_what_comes_late(
  tiny, make, radio, windows
):
  settings, arrays = parts(make(share=0.0, joules_weight=0.0))
  uniform = jnp.full(2, 0.5, jnp.float32)  # one layer, and what is unspent
  _, accuracy, joules = serve(settings, arrays, windows, REALISATIONS, uniform)
  # Realisation 1 has room for all pairs: request 1 is the routed model's.
  expected = models.score(tiny.model, tiny.params, windows).accuracy
  assert float(accuracy[1]) == pytest.approx(float(expected[1]), abs=1e-6)
  ids = windows[:, :-1].astype(jnp.int32)
  seen = tiny.model.apply(
    tiny.params, ids, observe=Partial(reroutes.observe_ids, ())
  )[1]
  by_request = np.asarray(seen).reshape(len(seen), B, -1)
  total = sum(
    float(radio.energy_j[1, layer, e, (by_request[layer, 1] == e).sum()])
    for layer in range(len(seen))
    for e in range(radio.energy_j.shape[2])
  )
  assert float(joules[1]) == pytest.approx(total / S, rel=1e-5)


def test_the_last_corner_s_budget_is_not_spent(make, windows):
  # Half unspent of .6 is all of .3; all unspent is none.
  for share, weights, same_share, same_weights in (
    (0.6, [0.5, 0.5], 0.3, [1.0, 0.0]),
    (0.6, [0.0, 1.0], 0.0, [1.0, 0.0]),
  ):
    first, second = (
      serve(
        *parts(make(share=s)), windows, REALISATIONS, jnp.array(w, jnp.float32)
      )
      for s, w in ((share, weights), (same_share, same_weights))
    )
    for one, other in zip(first, second, strict=True):
      np.testing.assert_array_equal(one, other)


def test_the_choice_is_the_cheapest_at_even_prices_by_loop(tiny, radio):
  rng = np.random.default_rng(1)
  experts = radio.energy_j.shape[2]
  slots = tiny.model.config.num_selected
  gates = rng.dirichlet(np.ones(slots), B * S).astype(np.float32)
  ids = np.array([rng.permutation(experts)[:slots] for _ in range(B * S)])
  probabilities = rng.dirichlet(np.ones(experts), B * S)
  tree = wireless_slots._Layer(
    radio.dissimilarity[0],
    radio.energy_j[REALISATIONS, 0],
    jnp.float32(0.35),
    jnp.float32(0.0),
  )
  layer = MoeInput(
    jnp.zeros((B * S, 1)),
    None,
    moe.Routing(
      jnp.asarray(ids, jnp.int32),
      jnp.asarray(gates),
      jnp.asarray(probabilities, jnp.float32),
    ),
    None,
    None,
  )
  found = np.asarray(wireless_slots._choose(tree, layer).expert_ids)
  energy = np.asarray(radio.energy_j)[np.asarray(REALISATIONS), 0]
  table = np.asarray(radio.dissimilarity[0], np.float64)
  changed = 0
  for request in range(B):
    most = np.isfinite(energy[request]).sum(axis=1) - 1
    load = np.clip(most, 1, max(1, S * slots // experts))
    price = energy[request, np.arange(experts), load] / load
    price = np.append(price, 0.0)
    served = np.zeros(experts, int)
    for n in range(request * S, (request + 1) * S):
      best, choice = np.inf, None
      for option in itertools.product(range(experts + 1), repeat=slots):
        spent = sum(
          gates[n, k] * table[ids[n, k], option[k]]
          for k in range(slots)
          if option[k] != ids[n, k]
        )
        cost = sum(price[column] for column in option)
        # Prices are drawn: no two options cost the same but for order.
        if spent <= 0.35 and cost < best * (1 - 1e-6):
          best, choice = cost, option
      expected = []
      for column in choice:
        late = False
        if column < experts:
          served[column] += 1
          late = served[column] > most[column]
        expected.append(-1 if late or column == experts else column)
      assert sorted(found[n]) == sorted(expected), n
      changed += expected != ids[n].tolist()
  assert changed > B * S // 3


def test_a_slot_tells_each_task_its_mean_reward(tiny, make):
  environment = make(share=0.3)
  state = environment.init(jax.random.key(0))
  uniform = jnp.full(2, 0.5, jnp.float32)  # one layer, and what is unspent
  feedback, outcome, _ = jax.jit(lambda e, *a: e.step(*a))(
    environment, jax.random.key(1), state, uniform
  )
  count = np.asarray(feedback.task_count)
  assert count.sum() == B and count[2] == 0
  total = np.asarray(feedback.task_reward, np.float64) @ count / B
  assert float(outcome.expected_reward) == pytest.approx(total, rel=1e-5)
  np.testing.assert_array_equal(environment.context(state).task_mix, MIX)
  _, arrays = parts(environment)
  best = (np.asarray(arrays.table.rewards) @ np.asarray(MIX)).max()
  assert float(outcome.optimal_reward) == pytest.approx(best, rel=1e-5)


def test_bad_environments_are_refused(tiny, make, radio):
  with pytest.raises(ValueError, match="act must be one of .*'skip'"):
    make(act="skip")
  with pytest.raises(ValueError, match="share must be .*share=-1"):
    make(share=-1.0)
  with pytest.raises(ValueError, match="radio must be of the model"):
    wireless_slots.wireless_slots(
      tiny.model,
      tiny.params,
      tiny.text,
      radio,
      task_mix=mixes.fixed(MIX),
      context=S - 1,
    )
  dense = dataclasses.replace(
    tiny.model, config=dataclasses.replace(tiny.model.config, num_experts=None)
  )
  with pytest.raises(ValueError, match="num_experts=None"):
    wireless_slots.wireless_slots(
      dense, tiny.params, tiny.text, radio, task_mix=mixes.fixed(MIX), context=S
    )
