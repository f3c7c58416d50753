"""Zooming against a slow float64 loop over cells and arms."""

import math

import numpy as np
import plain_box
import pytest

from tanbr_jax.bandits import zooming

LIPSCHITZ, NOISE, ROUNDS = 0.5, 0.1, 300


class Reference:
  """Arms are dicts; a leaf's arm that does not cover its cell is split."""

  def __init__(self, dimension, capacity=math.inf):
    self.arms, self.capacity = [], capacity
    self.add(np.zeros(dimension), np.ones(dimension))

  def add(self, lower, upper):
    self.arms.append(
      dict(lower=lower, upper=upper, count=0, total=0.0, leaf=True)
    )

  def radius(self, arm):
    return NOISE * math.sqrt(2 * math.log(ROUNDS) / (1 + arm["count"]))

  def pull(self, t):
    del t
    scores = [
      arm["total"] / arm["count"] + 2 * self.radius(arm)
      if arm["count"]
      else math.inf
      for arm in self.arms
    ]
    self.arm = self.arms[int(np.argmax(scores))]
    return 0.5 * (self.arm["lower"] + self.arm["upper"])

  def receive_reward(self, t, reward):
    del t
    arm = self.arm
    arm["count"] += 1
    arm["total"] += reward
    sides = arm["upper"] - arm["lower"]
    uncovered = self.radius(arm) < LIPSCHITZ * math.sqrt((sides**2).sum())
    if arm["leaf"] and uncovered and len(self.arms) + 2 <= self.capacity:
      arm["leaf"] = False
      axis = int(np.argmax(sides))
      middle = 0.5 * (arm["lower"][axis] + arm["upper"][axis])
      lower, upper = arm["lower"].copy(), arm["upper"].copy()
      upper[axis] = lower[axis] = middle
      self.add(arm["lower"], upper)
      self.add(lower, arm["upper"])


@pytest.mark.parametrize("capacity", [255, 21])
def test_decisions_are_those_of_a_slow_loop(capacity):
  bandit = zooming(
    **plain_box.trees(2, capacity, 20),
    lipschitz=LIPSCHITZ,
    noise_scale=NOISE,
    horizon=ROUNDS,
  )
  noise = 0.1 * np.random.default_rng(0).normal(size=(3, ROUNDS))
  ours = plain_box.play_ours(bandit, noise)
  for points, draws in zip(ours, noise, strict=True):
    reference = Reference(2, capacity)
    np.testing.assert_array_equal(
      points, plain_box.play_pyxab(reference, draws)
    )
    # The larger pool is never full, the smaller one is.
    assert (
      (len(reference.arms) == 21)
      if capacity == 21
      else (21 < len(reference.arms) < 255)
    )


@pytest.mark.parametrize(
  ("options", "message"),
  [
    (dict(lipschitz=0.0), "lipschitz must be"),
    (dict(noise_scale=-1.0), "noise_scale must be"),
    (dict(horizon=0.5), "horizon must be"),
    (dict(cells="disc"), "cells must be"),
  ],
)
def test_bad_input(options, message):
  with pytest.raises(ValueError, match=message):
    zooming(**dict(num_experts=3, num_tasks=2) | options)
