"""Prefill of small layers: dynamic programming over load vectors.

The energy is a function of the load vector [E], hence it is enough to know
which vectors the first tokens can make. Exact whatever the marginals are, as
long as none is negative: of a token's options those with more of every load
than another are left out, as are vectors whose energy, with a lower bound for
the tokens that follow, exceeds what a known choice takes. [R] the paper claims
an optimal policy without saying which.

Letters: N tokens, K experts per token, E experts, O options, S states.
"""

import itertools
import math

import numpy as np

from tanbr_jax.wireless import instance
from tanbr_jax.wireless.instance import InfeasibleError, Instance

# Options of a token, and load vectors at a time, that are still quick.
MOST_OPTIONS = 5_000
MOST_STATES = 200_000


def fits(one: Instance) -> bool:
  """Whether the programme is small enough for certain."""
  tokens, slots, columns = one.deviation.shape
  if columns**slots > MOST_OPTIONS:
    return False
  states = math.comb(tokens * slots + columns - 1, columns - 1)
  return states <= MOST_STATES


def solve(one: Instance, *, known_energy: float = np.inf) -> np.ndarray:
  """The columns [N, K] of least energy.

  Args:
    one: for which `fits` holds.
    known_energy: of a feasible choice; what is above it is left out.

  Raises:
    InfeasibleError: no choice keeps the constraints.
  """
  num_experts = one.num_experts
  options = [_options(one, token) for token in range(len(one.deviation))]
  # A bound for what follows: every pair at its expert's cheapest marginal.
  least = one.marginal.min(axis=1, initial=np.inf)
  cheap = [_priced(loads, least).min() for loads, _ in options]
  order = sorted(range(len(options)), key=lambda n: len(options[n][0]))
  rest = np.cumsum([cheap[n] for n in reversed(order)])[::-1]
  limit = known_energy * (1 + 1e-9)
  states = np.zeros((1, num_experts), np.int64)
  steps = []
  for place, token in enumerate(order):
    loads, _ = options[token]
    grown = (states[:, None, :] + loads[None]).reshape(-1, num_experts)
    grown, first = np.unique(grown, axis=0, return_index=True)
    energy = _energies(one, grown)
    after = rest[place + 1] if place + 1 < len(order) else 0.0
    is_kept = np.isfinite(energy) & (energy + after <= limit)
    if not is_kept.any():
      raise InfeasibleError(instance.explain(one, token))
    states = grown[is_kept]
    steps.append((token, first[is_kept], len(loads)))
  return _trace_back(one, options, steps, states)


def _trace_back(
  one: Instance,
  options: list[tuple[np.ndarray, np.ndarray]],
  steps: list[tuple[int, np.ndarray, int]],
  states: np.ndarray,
) -> np.ndarray:
  columns = np.empty(one.own.shape, np.int64)
  at = int(np.argmin(_energies(one, states))) if steps else 0
  for token, came, num_options in reversed(steps):
    at, option = divmod(int(came[at]), num_options)
    columns[token] = options[token][1][option]
  return columns


def _energies(one: Instance, loads: np.ndarray) -> np.ndarray:
  experts = np.arange(one.num_experts)
  return one.cumulative[experts, loads].sum(axis=1)


def _priced(loads: np.ndarray, least: np.ndarray) -> np.ndarray:
  # An expert that can take nothing costs inf, but not where it is not used.
  return np.where(loads > 0, loads * np.where(loads > 0, least, 0.0), 0.0).sum(
    axis=1
  )


def _options(one: Instance, token: int) -> tuple[np.ndarray, np.ndarray]:
  """A token's load vectors [O, E], none above another, and columns [O, K].

  Of equal vectors the one of least deviation is kept.
  """
  parts = one.deviation[token]
  slots, num_columns = parts.shape
  lists = [np.flatnonzero(np.isfinite(row)) for row in parts]
  columns = np.array(list(itertools.product(*lists)), np.int64)
  total = np.zeros(len(columns))
  for slot in range(slots):
    total = total + parts[slot, columns[:, slot]]
  columns, total = columns[total <= one.budget], total[total <= one.budget]
  columns = columns[np.argsort(total, kind="stable")]
  loads = np.zeros((len(columns), num_columns), np.int64)
  for slot in range(slots):
    loads[np.arange(len(columns)), columns[:, slot]] += 1
  loads, first = np.unique(loads[:, :-1], axis=0, return_index=True)
  # loads[j] <= loads[i] everywhere, j != i: option i is never needed.
  below = (loads[None, :] <= loads[:, None]).all(axis=2)
  np.fill_diagonal(below, False)
  is_kept = ~below.any(axis=1)
  return loads[is_kept], columns[first[is_kept]]
