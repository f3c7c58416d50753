"""CATS against a slow loop over nodes, and its density."""

import importlib
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from unwrapped import unwrapped

from tanbr_jax import bandits
from tanbr_jax.bandits import Context, Feedback

cats = importlib.import_module("tanbr_jax.bandits.arms.cats")

E, V, T, DEPTH = 3, 2, 60, 3
LEAVES = 2**DEPTH
NUMBERS = {
  "epsilon": 0.3,
  "bandwidth": 0.1,
  "learning_rate": 0.7,
  "baseline": 0.2,
}


def make():
  return unwrapped(
    bandits.cats(num_experts=E, num_tasks=V, depth=DEPTH, **NUMBERS)
  )


@pytest.fixture(scope="module")
def run():
  """Rows (mix, reward, count, leaf, action, density, state after)."""
  bandit = make()
  select, update = jax.jit(bandit.select), jax.jit(bandit.update)
  rng, state, rows = np.random.default_rng(0), bandit.init(None), []
  for t in range(T):
    key = jax.random.key(t)
    context = Context(jnp.asarray(rng.dirichlet(np.ones(V)), jnp.float32))
    decision = select(key, state, context)
    reward = rng.normal(0, 0.1, V) - np.abs(
      decision.merge_weights[:V] - np.array([0.9, 0.4])
    )
    count = np.array([1, t % 3])
    if t % 10 == 3:
      count[:] = 0
    feedback = Feedback(
      jnp.asarray(reward, jnp.float32), jnp.asarray(count, jnp.int32)
    )
    state = update(key, state, context, decision, feedback)
    aux = {name: np.asarray(x) for name, x in decision.aux.items()}
    rows.append(
      (np.asarray(context.task_mix, float), reward, count, aux, state)
    )
  return rows


class SlowCats:
  """One node at a time, in float64; only nodes whose children differ."""

  def __init__(self):
    self.weights = np.zeros((LEAVES - 1, V))
    self.squares = np.zeros((LEAVES - 1, V))
    self.lowest, self.highest = np.inf, -np.inf

  def child(self, node, mix):
    return 2 * node + (2 if self.weights[node] @ mix > 0 else 1)

  def leaf(self, mix):
    node = 0
    while node < LEAVES - 1:
      node = self.child(node, mix)
    return node - (LEAVES - 1)

  def smoothed(self, leaf, action):
    centre = (leaf + 0.5) / LEAVES
    low = max(0.0, centre - NUMBERS["bandwidth"])
    high = min(1.0, centre + NUMBERS["bandwidth"])
    return (low <= action <= high) / (high - low)

  def density(self, leaf, action):
    epsilon = NUMBERS["epsilon"]
    return (1 - epsilon) * self.smoothed(leaf, action) + epsilon

  def learn(self, mix, reward, count, action, density):
    shares = mix * (count > 0)
    if not shares.sum():
      return
    value = shares @ reward / shares.sum()
    self.lowest = min(self.lowest, value)
    self.highest = max(self.highest, value)
    width = self.highest - self.lowest
    cost = 1 - ((value - self.lowest) / width if width > 0 else 0.5)
    cost -= NUMBERS["baseline"]
    costs = {
      LEAVES - 1 + leaf: self.smoothed(leaf, action) / density * cost
      for leaf in range(LEAVES)
    }
    for node in reversed(range(LEAVES - 1)):
      left, right = costs[2 * node + 1], costs[2 * node + 2]
      if not math.isclose(left, right, rel_tol=1e-5):
        self.learn_node(node, mix, 1 if right < left else -1, abs(left - right))
      costs[node] = costs[self.child(node, mix)]

  def learn_node(self, node, mix, label, weight):
    margin = label * (self.weights[node] @ mix)
    gradient = -weight * label * mix / (1 + math.exp(margin))
    self.squares[node] += gradient**2
    step = gradient / np.sqrt(np.maximum(self.squares[node], 1e-20))
    self.weights[node] -= NUMBERS["learning_rate"] * step


def test_every_step_is_that_of_a_slow_loop(run):
  slow = SlowCats()
  for mix, reward, count, aux, state in run:
    assert aux["leaf"] == slow.leaf(mix)
    wanted = slow.density(aux["leaf"], aux["action"])
    np.testing.assert_allclose(aux["density"], wanted, rtol=1e-5)
    slow.learn(mix, reward, count, float(aux["action"]), float(aux["density"]))
    # Sixty float32 steps.
    np.testing.assert_allclose(state.classifiers, slow.weights, atol=1e-4)
  assert np.abs(slow.weights).min() > 0


@pytest.mark.parametrize("leaf", [0, 3, LEAVES - 1])
def test_smoothed_density_integrates_to_one(leaf):
  edges = cats.windows(LEAVES, 0.1)[leaf]
  actions = (np.arange(20_000) + 0.5) / 20_000
  density = cats.smoothed_density(edges, jnp.asarray(actions, jnp.float32))
  # The midpoint rule misses at most a cell, of height 1 / width <= 10, at
  # each of two jumps.
  assert abs(float(np.mean(density)) - 1) < 2 * 10 / 20_000


def test_actions_have_the_density_that_is_told(run):
  bandit, mix, state = make(), run[-1][0], run[-1][4]
  context = Context(jnp.asarray(mix, jnp.float32))
  draw = jax.jit(jax.vmap(lambda key: bandit.select(key, state, context).aux))
  aux = draw(jax.random.split(jax.random.key(9), 4000))
  slow = SlowCats()
  leaf = int(aux["leaf"][0])
  wanted = [slow.density(leaf, action) for action in np.asarray(aux["action"])]
  np.testing.assert_allclose(aux["density"], wanted, rtol=1e-5)
  low, high = np.asarray(cats.windows(LEAVES, 0.1)[leaf])
  inside = np.mean((aux["action"] >= low) & (aux["action"] <= high))
  # 5 standard errors of a share of 4,000 draws.
  assert abs(inside - (0.7 + 0.3 * (high - low))) < 5 * 0.5 / 4000**0.5
  # The mean of 1 / density over what is drawn is the length of [0, 1]; 1 /
  # density is at most 1 / .3.
  assert abs(np.mean(1 / aux["density"]) - 1) < 5 / 0.3 / 2 / 4000**0.5


@pytest.mark.parametrize(
  "name, value",
  [
    ("epsilon", 0.0),
    ("bandwidth", 0.6),
    ("learning_rate", -1.0),
    ("baseline", 1.5),
    ("depth", 0),
    ("num_tasks", 0),
  ],
)
def test_bad_input(name, value):
  options = {"num_experts": E, "num_tasks": V, name: value}
  with pytest.raises(ValueError, match=f"{name}={value}"):
    bandits.cats(**options)
