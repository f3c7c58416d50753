"""Tanbr's tree rule and leaf choice against plain recursions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from unwrapped import unwrapped

from tanbr_jax import bandits
from tanbr_jax.bandits import Context, Feedback

E, V = 3, 2
MIX = np.array([0.7, 0.3], np.float32)
RHO = 0.6


@pytest.fixture(scope="module")
def run():
  """60 rounds of a small tree of the paper: states before, and decisions."""
  bandit = unwrapped(
    bandits.tanbr_paper(num_experts=E, num_tasks=V, capacity=31, rho=RHO)
  )
  select, update = jax.jit(bandit.select), jax.jit(bandit.update)
  state, rounds = jax.jit(bandit.init)(jax.random.key(0)), []
  context = Context(jnp.asarray(MIX))
  for t in range(60):
    key = jax.random.key(t)
    decision = select(key, state, context)
    x = np.asarray(decision.merge_weights)
    reward = jnp.asarray([-((x[0] - 0.9) ** 2), -((x[1] - 0.4) ** 2)])
    feedback = Feedback(reward, jnp.ones(V, jnp.int32))
    rounds.append((state, decision))
    state = update(key, state, context, decision, feedback)
  return rounds


def test_a_leaf_splits_when_its_count_reaches_the_threshold(run):
  visits = {}
  for (state, decision), (after, _) in zip(run[:-1], run[1:], strict=True):
    leaf = int(decision.aux["leaf"])
    visits[leaf] = visits.get(leaf, 0) + 1
    depth = int(state.source.tree.depths[leaf])
    splits = visits[leaf] >= np.ceil(RHO ** (-2 * depth))
    grew = int(after.source.tree.num_nodes) - int(state.source.tree.num_nodes)
    assert grew == (2 if splits and not bool(after.source.tree.full) else 0)
  assert int(run[-1][0].source.tree.num_nodes) >= 9


def test_the_paper_plays_the_best_leaf_representative(run):
  for state, decision in run[20:30]:
    tree, model = state.source.tree, state.model
    scale = float(np.sqrt(model.learner.replay.scale.square))
    layers = jax.tree.map(np.asarray, model.learner.params["params"])
    root = np.asarray(model.confidence.high, np.float64)
    root += np.asarray(model.confidence.low, np.float64)
    scores = np.full(31, -np.inf)
    for node in np.flatnonzero(tree.is_leaf):
      hidden = np.asarray(tree.representatives[node], np.float64)
      for name in ("hidden_layers_0", "hidden_layers_1"):
        layer = layers[name]
        hidden = np.maximum(hidden @ layer["kernel"] + layer["bias"], 0)
      output = layers["output"]
      mean = MIX @ (hidden @ output["kernel"] + output["bias"])
      phi = np.append(hidden, 1) / np.sqrt(64)
      scores[node] = scale * (mean + np.linalg.norm(phi @ root))
    leaf = int(decision.aux["leaf"])
    # A tie within rounding may go either way.
    assert scores[leaf] >= scores.max() - 1e-4 * abs(scores.max())
    np.testing.assert_array_equal(
      decision.merge_weights, tree.representatives[leaf]
    )


def test_a_slot_without_observations_leaves_everything_alone(run):
  state, decision = run[30]
  bandit = unwrapped(
    bandits.tanbr_paper(num_experts=E, num_tasks=V, capacity=31, rho=RHO)
  )
  feedback = Feedback(jnp.full(V, jnp.nan), jnp.zeros(V, jnp.int32))
  after = jax.jit(bandit.update)(
    jax.random.key(0), state, Context(jnp.asarray(MIX)), decision, feedback
  )
  for old, new in zip(
    jax.tree.leaves((state.source, state.model.confidence)),
    jax.tree.leaves((after.source, after.model.confidence)),
    strict=True,
  ):
    np.testing.assert_array_equal(old, new)


def test_weights_may_be_served_before_the_rest_of_a_decision(run):
  """An update that is told the weights alone finds the same leaf itself."""
  bandit = bandits.tanbr_paper(num_experts=E, num_tasks=V, capacity=31, rho=RHO)
  update = jax.jit(unwrapped(bandit).update)
  feedback = Feedback(jnp.zeros(V), jnp.ones(V, jnp.int32))
  for state, decision in run[10::10]:
    arguments = jax.random.key(0), state, Context(jnp.asarray(MIX))
    whole = update(*arguments, decision, feedback)
    bare = update(*arguments, decision._replace(aux={}), feedback)
    # The tree and its visits; the network is another program's.
    jax.tree.map(np.testing.assert_array_equal, bare.source, whole.source)


@pytest.mark.parametrize(
  "options, words",
  [
    ({"rho": 1.0}, "rho=1.0"),
    ({"rho": 0.0}, "rho=0.0"),
    ({"cells": "ball"}, "ball"),
    ({"split_scale": -1.0}, "split_scale=-1.0"),
    ({"num_starts": 0}, "num_starts=0"),
    ({"num_ascent_steps": -1}, "num_ascent_steps=-1"),
    ({"num_ascent_steps": 0}, "num_fresh=32, num_ascent_steps=0"),
    ({"exploration": float("nan")}, "exploration=nan"),
    ({"num_fresh": -1}, "num_fresh=-1"),
  ],
)
def test_bad_input(options, words):
  with pytest.raises(ValueError, match=words):
    bandits.tanbr(num_experts=E, num_tasks=V, **options)


@pytest.mark.parametrize(
  "options, words",
  [
    ({"budget": 4}, "budget=4, num_experts=3"),
    ({"cells": "simplex", "budget": 2}, "budget=2"),
    ({"exploration": -1.0}, "exploration=-1.0"),
    ({"confidence": "half"}, "confidence='half'"),
    ({"ridge": -1.0}, "ridge=-1.0"),
  ],
)
def test_bad_input_of_the_paper(options, words):
  with pytest.raises(ValueError, match=words):
    bandits.tanbr_paper(num_experts=E, num_tasks=V, **options)
