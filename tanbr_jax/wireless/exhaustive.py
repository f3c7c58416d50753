"""Every choice of a small instance, one by one: what the others are held to."""

import itertools

import numpy as np

from tanbr_jax.wireless import instance
from tanbr_jax.wireless.instance import InfeasibleError
from tanbr_jax.wireless.prefill import Choice

MOST_CHOICES = 2_000_000


def brute_force(
  gates: np.ndarray,
  expert_ids: np.ndarray,
  dissimilarity: np.ndarray,
  marginal_energy: np.ndarray,
  *,
  budget: float,
) -> Choice:
  """As `select_prefill`, by trying all (E + 1)^(N K) choices.

  Raises:
    ValueError: there are more than `MOST_CHOICES`.
    InfeasibleError: none keeps the constraints.
  """
  one = instance.make(
    gates, expert_ids, dissimilarity, marginal_energy, budget=budget
  )
  tokens, slots, columns = one.deviation.shape
  if columns ** (tokens * slots) > MOST_CHOICES:
    raise ValueError(
      f"brute_force tries at most {MOST_CHOICES} choices, got "
      f"{columns}^{tokens * slots}"
    )
  all_of_token = np.array(
    list(itertools.product(range(columns), repeat=slots)), np.int64
  )
  # Per token what keeps the budget, then all combinations of those.
  kept = []
  for token in range(tokens):
    spent = np.zeros(len(all_of_token))
    for slot in range(slots):
      spent = spent + one.deviation[token, slot, all_of_token[:, slot]]
    kept.append(np.flatnonzero(spent <= one.budget))
  picks = np.stack(
    [axis.reshape(-1) for axis in np.meshgrid(*kept, indexing="ij")], axis=1
  )
  chosen = all_of_token[picks].reshape(len(picks), -1)
  loads = (chosen[:, :, None] == np.arange(columns - 1)).sum(axis=1)
  energy = one.cumulative[np.arange(columns - 1), loads].sum(axis=1)
  best = int(energy.argmin())
  if not np.isfinite(energy[best]):
    raise InfeasibleError(instance.explain(one, 0))
  ids = instance.to_ids(chosen[best].reshape(tokens, slots), columns - 1)
  return Choice(ids, float(energy[best]), float(energy[best]), "brute_force")
