"""StoSOO against the paper's pseudo code as a slow float64 generator."""

import math

import numpy as np
import plain_box
import pytest

from tanbr_jax.bandits import sto_soo

BUDGET, ROUNDS, SCALE = 300, 320, 0.5


class Reference:
  """The paper's two loops, h inside t, with `yield` where it samples."""

  def __init__(self, dimension, depth_limit, capacity):
    self.samples = math.ceil(BUDGET / math.log(BUDGET) ** 3)
    self.delta = 1 / math.sqrt(BUDGET)
    self.depth_limit, self.capacity = depth_limit, capacity
    self.nodes = [self.node(np.zeros(dimension), np.ones(dimension), 0)]
    self.run = self.sweep()

  def node(self, lower, upper, depth):
    return dict(
      lower=lower, upper=upper, depth=depth, count=0, total=0.0, leaf=True
    )

  def score(self, node):
    if not node["count"]:
      return math.inf
    inside = math.log(BUDGET * self.samples / self.delta) / (2 * node["count"])
    return node["total"] / node["count"] + SCALE * math.sqrt(inside)

  def sweep(self):
    for _ in range(BUDGET):  # more sweeps than samples are never needed
      floor, depth = -math.inf, 0
      while depth <= max(node["depth"] for node in self.nodes):
        leaves = [
          node for node in self.nodes if node["leaf"] and node["depth"] == depth
        ]
        depth += 1
        if not leaves:
          continue
        best = max(leaves, key=self.score)
        if self.score(best) < floor:
          continue
        fits = len(self.nodes) + 2 <= self.capacity
        can_split = best["depth"] < self.depth_limit and fits
        if best["count"] < self.samples or not can_split:
          yield best
        else:
          floor = self.score(best)
          self.split(best)

  def split(self, node):
    node["leaf"] = False
    axis = int(np.argmax(node["upper"] - node["lower"]))
    lower, upper = node["lower"].copy(), node["upper"].copy()
    upper[axis] = lower[axis] = 0.5 * (lower[axis] + upper[axis])
    self.nodes.append(self.node(node["lower"], upper, node["depth"] + 1))
    self.nodes.append(self.node(lower, node["upper"], node["depth"] + 1))

  def recommend(self):
    inner = [node for node in self.nodes if not node["leaf"]]
    deepest = max(node["depth"] for node in inner)
    return max(
      (node for node in inner if node["depth"] == deepest),
      key=lambda node: node["total"] / node["count"],
    )

  def pull(self, t):
    self.now = next(self.run) if t <= BUDGET else self.recommend()
    return 0.5 * (self.now["lower"] + self.now["upper"])

  def receive_reward(self, t, reward):
    del t
    self.now["count"] += 1
    self.now["total"] += reward


@pytest.mark.parametrize(
  ("capacity", "depth_limit"),
  [pytest.param(511, 12, marks=pytest.mark.slow), (41, 4)],
)
def test_decisions_are_those_of_the_pseudo_code(capacity, depth_limit):
  bandit = sto_soo(
    **plain_box.trees(2, capacity, 20),
    noise_scale=SCALE,
    horizon=BUDGET,
    depth_limit=depth_limit,
  )
  noise = 0.1 * np.random.default_rng(0).normal(size=(3, ROUNDS))
  ours = plain_box.play_ours(bandit, noise)
  for points, draws in zip(ours, noise, strict=True):
    reference = Reference(2, depth_limit, capacity)
    np.testing.assert_array_equal(
      points, plain_box.play_pyxab(reference, draws)
    )
    assert len(reference.nodes) > 20


@pytest.mark.parametrize(
  ("options", "message"),
  [
    (dict(horizon=2), "horizon must be"),
    (dict(noise_scale=0.0), "noise_scale must be"),
    (dict(max_samples=0), "max_samples must be"),
    (dict(depth_limit=0), "depth_limit must be"),
    (dict(delta=2.0), "delta must be in"),
  ],
)
def test_bad_input(options, message):
  with pytest.raises(ValueError, match=message):
    sto_soo(**dict(num_experts=3, num_tasks=2) | options)
