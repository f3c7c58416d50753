"""Tanbr's tree rule and leaf choice against plain recursions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tanbr_jax import bandits
from tanbr_jax.bandits import Context, Feedback
from tanbr_jax.bandits.trees.tanbr import PRESETS

E, V = 3, 2
MIX = np.array([0.7, 0.3], np.float32)
RHO = 0.6


@pytest.fixture(scope="module")
def run():
  """60 rounds of a small paper preset: states before, and decisions."""
  bandit = bandits.tanbr(
    num_experts=E, num_tasks=V, preset="paper", capacity=31, rho=RHO
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
    depth = int(state.tree.depths[leaf])
    splits = visits[leaf] >= np.ceil(RHO ** (-2 * depth))
    grew = int(after.tree.num_nodes) - int(state.tree.num_nodes)
    assert grew == (2 if splits and not bool(after.tree.full) else 0)
  assert int(run[-1][0].tree.num_nodes) >= 9


def test_the_paper_preset_plays_the_best_leaf_representative(run):
  for state, decision in run[20:30]:
    tree, model = state.tree, state.model
    scale = float(np.sqrt(model.scale.square))
    layers = jax.tree.map(np.asarray, model.params["params"])
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
  bandit = bandits.tanbr(
    num_experts=E, num_tasks=V, preset="paper", capacity=31, rho=RHO
  )
  feedback = Feedback(jnp.full(V, jnp.nan), jnp.zeros(V, jnp.int32))
  after = jax.jit(bandit.update)(
    jax.random.key(0), state, Context(jnp.asarray(MIX)), decision, feedback
  )
  for old, new in zip(
    jax.tree.leaves((state.tree, state.visits, state.model.confidence)),
    jax.tree.leaves((after.tree, after.visits, after.model.confidence)),
    strict=True,
  ):
    np.testing.assert_array_equal(old, new)


def test_presets_keep_the_papers_choices():
  paper = PRESETS["paper"]
  assert (paper.cells, paper.hidden) == ("box", (64, 64))
  assert (paper.exploration, paper.regularisation) == (1.0, 1.0)
  assert paper.num_ascent_steps == 0


@pytest.mark.parametrize(
  "options, words",
  [
    ({"preset": "best"}, "'best'"),
    ({"rhoo": 0.5}, "rhoo"),
    ({"rho": 1.0}, "rho=1.0"),
    ({"rho": 0.0}, "rho=0.0"),
    ({"cells": "ball"}, "ball"),
    ({"model": "table"}, "table"),
    ({"preset": "paper", "budget": 4}, "budget=4, num_experts=3"),
    ({"budget": 2}, "budget=2"),
    ({"cells": "box", "budget": 2}, "budget=2, num_ascent_steps=12"),
    ({"split_scale": -1.0}, "split_scale=-1.0"),
    ({"num_starts": 0}, "num_starts=0"),
    ({"num_ascent_steps": -1}, "num_ascent_steps=-1"),
    ({"exploration": float("nan")}, "exploration=nan"),
    ({"preset": "paper", "exploration": -1.0}, "exploration=-1.0"),
    ({"num_fresh": -1}, "num_fresh=-1"),
  ],
)
def test_bad_input(options, words):
  with pytest.raises(ValueError, match=words):
    bandits.tanbr(num_experts=E, num_tasks=V, **options)
