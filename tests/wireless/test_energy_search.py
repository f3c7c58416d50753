import itertools

import numpy as np
import pytest

from tanbr_jax import wireless
from tanbr_jax.wireless import energy_search


def loop_cover(scores, energy, quality, most):
  best = np.inf
  for size in range(most + 1):
    for members in itertools.combinations(range(len(scores)), size):
      if scores[list(members)].sum() >= quality:
        best = min(best, energy[list(members)].sum())
  return best


def test_the_tree_search_finds_the_least_energy():
  rng = np.random.default_rng(0)
  infeasible = 0
  for _ in range(2000):
    scores = rng.dirichlet(np.ones(5))
    energy = rng.exponential(size=5)
    energy[rng.random(5) < 0.15] = np.inf
    quality, most = rng.uniform(0, 1), int(rng.integers(1, 4))
    best = loop_cover(scores, energy, quality, most)
    try:
      members = energy_search.cheapest_cover(
        scores, energy, quality=quality, most=most
      )
    except wireless.InfeasibleError as error:
      assert best == np.inf and f"quality={quality:g}" in str(error)
      infeasible += 1
      continue
    assert len(members) <= most and scores[members].sum() >= quality
    assert energy[members].sum() == pytest.approx(best, rel=1e-9, abs=1e-300)
  assert 100 < infeasible < 1500


def test_subcarriers_and_experts_by_turns():
  rng = np.random.default_rng(1)
  found, best = [], []
  for _ in range(40):
    scores = rng.dirichlet(np.ones(3), 4)
    energy = rng.exponential(size=(3, 4))
    members, carriers = energy_search.with_subcarriers(
      scores, energy, quality=0.6, most=2
    )
    assert len(set(carriers.tolist())) == 3
    price = energy[np.arange(3), carriers]
    for row, chosen in zip(scores, members, strict=True):
      assert row[chosen].sum() >= 0.6 and len(chosen) <= 2
    found.append(sum(price[chosen].sum() for chosen in members))
    best.append(
      min(
        sum(
          loop_cover(row, energy[np.arange(3), list(order)], 0.6, 2)
          for row in scores
        )
        for order in itertools.permutations(range(4), 3)
      )
    )
  found, best = np.array(found), np.array(best)
  # By turns is a local search: never below the best, and mostly near it.
  assert (found >= best * (1 - 1e-9)).all()
  assert np.median(found / best) < 1.1


def test_bad_searches_are_refused():
  ones = np.ones(2)
  with pytest.raises(ValueError, match="most=0"):
    energy_search.cheapest_cover(ones, ones, quality=1, most=0)
  with pytest.raises(ValueError, match=r"C >= E, got \[3, 2\]"):
    energy_search.with_subcarriers(
      np.ones((1, 3)), np.ones((3, 2)), quality=1, most=1
    )
