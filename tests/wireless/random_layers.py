"""Random small instances, and the plainest loops over their choices."""

import itertools

import numpy as np


def draw(rng, *, tokens, slots, experts, convex=True):
  """gates, ids, table, marginals and a budget; a third have capacities."""
  gates = rng.dirichlet(np.ones(slots), tokens)
  gates *= rng.uniform(0.3, 1.0, (tokens, 1))
  ids = np.array([rng.permutation(experts)[:slots] for _ in range(tokens)])
  table = rng.uniform(0, 1, (experts, experts + 1))
  np.fill_diagonal(table, 0.0)
  table[:, -1] += 0.5
  marginal = rng.exponential(size=(experts, tokens * slots))
  if convex:
    marginal.sort(axis=1)
  else:
    marginal[:, 0] += rng.exponential(size=experts) * 3  # a load
  if rng.random() < 1 / 3:
    most = rng.integers(0, tokens * slots + 1, experts)
    marginal[np.arange(tokens * slots) >= most[:, None]] = np.inf
  return gates, ids, table, marginal, rng.uniform(0, 0.8)


def check(choice, gates, ids, table, marginal, budget):
  """The energy of a replacement, by loops; the budget of every token."""
  energy, loads = 0.0, [0] * len(table)
  for n, row in enumerate(choice):
    spent = 0.0
    for k, new in enumerate(row):
      if new != ids[n, k]:
        spent += gates[n, k] * table[ids[n, k], new]  # -1 is the last column
      if new >= 0:
        energy += marginal[new, loads[new]]
        loads[new] += 1
    assert spent <= budget
  return energy


def least_energy(gates, ids, table, marginal, budget):
  """The least energy of all choices, [N K] at a time; inf if there is none.

  Written apart from `wireless.brute_force`: all (E + 1)^(N K) rows, no pruning.
  """
  tokens, slots = ids.shape
  experts = len(table)
  rows = _all(experts, tokens * slots)
  total = np.zeros((len(rows), tokens))
  loads = np.zeros((len(rows), experts), np.int64)
  for place in range(tokens * slots):
    n, k = divmod(place, slots)
    own = table[ids[n, k]].copy()
    own[ids[n, k]] = 0.0
    total[:, n] += gates[n, k] * own[rows[:, place]]
    loads += rows[:, place, None] == np.arange(experts)
  sums = np.concatenate([np.zeros((experts, 1)), marginal.cumsum(axis=1)], 1)
  energy = sums[np.arange(experts), loads].sum(axis=1)
  return np.where((total <= budget).all(axis=1), energy, np.inf).min()


_ROWS = {}


def _all(experts, places):
  if (experts, places) not in _ROWS:
    rows = list(itertools.product(range(-1, experts), repeat=places))
    _ROWS[experts, places] = np.array(rows)
  return _ROWS[experts, places]
