"""Every way to choose a layer's experts, on the host, by one signature.

`policy(gates, expert_ids, probabilities, layer) -> (expert_ids, gates)`, NumPy
in and out, for the n tokens that share a layer's radio. What the neighbours'
methods do is rebuilt from their descriptions [R]; all of them but `ideal_top_k`
and SiftMoE's own lose what comes late: of an expert's pairs, in the order of
the tokens, as many are served as the layer's constraints allow.

Letters: n tokens, K experts per token, E experts, M pairs at most.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from tanbr_jax.moe.routing import NO_EXPERT
from tanbr_jax.wireless import energy_search, instance, prefill
from tanbr_jax.wireless.instance import InfeasibleError


class Layer(NamedTuple):
  """A layer as policies see it.

  Attributes:
    dissimilarity: [E, E + 1].
    marginal_j: [E, M], inf = cannot.
    latency_s: [E], one state's at the user's largest power.
    budget: of a token's deviation.
    knob: the policy's own parameter, see each.
  """

  dissimilarity: np.ndarray
  marginal_j: np.ndarray
  latency_s: np.ndarray
  budget: float
  knob: float


Pairs = tuple[np.ndarray, np.ndarray]
Policy = Callable[[np.ndarray, np.ndarray, np.ndarray, Layer], Pairs]


def sift(
  gates: np.ndarray,
  expert_ids: np.ndarray,
  probabilities: np.ndarray,
  layer: Layer,
) -> Pairs:
  """SiftMoE: `select_prefill` within `layer.budget`.

  Where no choice is feasible only the tokens that lose a pair get more budget
  [R]: each busy expert keeps the pairs that deviate most by being skipped, as
  many as it can serve, and a token that loses others may deviate by as much as
  skipping them takes.
  """
  del probabilities
  table, marginal = layer.dissimilarity, layer.marginal_j
  try:
    ids = prefill.select_prefill(
      gates, expert_ids, table, marginal, budget=layer.budget
    )
    return ids, np.where(ids == NO_EXPERT, 0.0, gates)
  except InfeasibleError:
    pass
  skipped = np.where(expert_ids >= 0, gates * table[expert_ids, -1], 0.0)
  order = np.argsort(-skipped, axis=None, kind="stable")
  is_kept = _is_served(expert_ids, layer, order)
  most = np.where(is_kept, 0.0, skipped).sum(axis=1)
  # Budgets by token, as gates in units of them; rounding is not to forbid what
  # skipping takes, and a token without any budget keeps all its pairs.
  budgets = np.maximum(layer.budget, most * (1 + 1e-9))
  budgets = np.maximum(budgets, 1e-12 * max(skipped.max(initial=0.0), 1e-30))
  try:
    ids = prefill.select_prefill(
      gates / budgets[:, None], expert_ids, table, marginal, budget=1.0
    )
  except InfeasibleError:  # as far as a search for K > 1 went
    ids = np.where(is_kept, expert_ids, NO_EXPERT)
  return ids, np.where(ids == NO_EXPERT, 0.0, gates)


def ideal_top_k(
  gates: np.ndarray,
  expert_ids: np.ndarray,
  probabilities: np.ndarray,
  layer: Layer,
) -> Pairs:
  """The router's choice, as if nothing came late."""
  del probabilities, layer
  return expert_ids, gates


def practical_top_k(
  gates: np.ndarray,
  expert_ids: np.ndarray,
  probabilities: np.ndarray,
  layer: Layer,
) -> Pairs:
  """The router's choice less what comes late."""
  del probabilities
  return lose_late(expert_ids, gates, layer)


def wdmoe(
  gates: np.ndarray,
  expert_ids: np.ndarray,
  probabilities: np.ndarray,
  layer: Layer,
) -> Pairs:
  """WDMoE: pairs of little gate for their latency are dropped [R].

  A token keeps the pairs whose gate over latency is at least `knob`, in [0, 1],
  of its largest.
  """
  del probabilities
  served = np.maximum(expert_ids, 0)
  worth = np.where(expert_ids >= 0, gates / layer.latency_s[served], 0.0)
  is_kept = worth >= layer.knob * worth.max(axis=1, keepdims=True)
  return _practical(expert_ids, gates, is_kept, layer)


def adapmoe(
  gates: np.ndarray,
  expert_ids: np.ndarray,
  probabilities: np.ndarray,
  layer: Layer,
) -> Pairs:
  """AdapMoE: the slots after the first go where the first's gate suffices [R].

  A slot k >= 1 is dropped where its squared gate is at most `knob`.
  """
  del probabilities
  is_kept = np.square(gates) > layer.knob
  is_kept[:, 0] = True
  return _practical(expert_ids, gates, is_kept, layer)


def dynamic_selection(
  gates: np.ndarray,
  expert_ids: np.ndarray,
  probabilities: np.ndarray,
  layer: Layer,
) -> Pairs:
  """DES: a token's cheapest experts whose probabilities sum to `knob` [R].

  At most K of all E; energies are those of one state. The quality is relative
  to the router's own K; gates are the members' probabilities, scaled to the sum
  of the router's gates. A token without such experts keeps the router's.
  """
  ids, new_gates = expert_ids.copy(), gates.copy()
  slots = ids.shape[1]
  price = layer.marginal_j[:, 0]
  for token, row in enumerate(probabilities):
    is_active = expert_ids[token] >= 0
    if not is_active.any():
      continue
    quality = layer.knob * row[expert_ids[token][is_active]].sum()
    try:
      members = energy_search.cheapest_cover(
        row, price, quality=quality, most=slots
      )
    except InfeasibleError:
      continue
    share = row[members] / max(row[members].sum(), 1e-30)
    ids[token], new_gates[token] = NO_EXPERT, 0.0
    ids[token, : len(members)] = members
    new_gates[token, : len(members)] = share * gates[token].sum()
  return lose_late(ids, new_gates, layer)


def sere(
  gates: np.ndarray,
  expert_ids: np.ndarray,
  probabilities: np.ndarray,
  layer: Layer,
) -> Pairs:
  """SERE: other slots' experts give way to similar ones of first slots [R].

  Experts that are some token's first are primary. A pair of another slot whose
  expert is not, goes to the most similar primary one, if the dissimilarity is
  at most `knob` times that of skipping.
  """
  del probabilities
  num_experts = len(layer.dissimilarity)
  first = expert_ids[:, 0]
  is_primary = np.zeros(num_experts, bool)
  is_primary[first[first >= 0]] = True
  distance = np.where(
    is_primary[None], layer.dissimilarity[:, :num_experts], np.inf
  )
  nearest = distance.argmin(axis=1)
  least = distance.min(axis=1)
  is_near = least <= layer.knob * layer.dissimilarity[:, num_experts]
  new = np.where(~is_primary & is_near, nearest, np.arange(num_experts))
  ids = np.where(expert_ids >= 0, new[np.maximum(expert_ids, 0)], NO_EXPERT)
  ids[:, 0] = first
  return lose_late(ids, gates, layer)


def random_replacement(
  gates: np.ndarray,
  expert_ids: np.ndarray,
  probabilities: np.ndarray,
  layer: Layer,
) -> Pairs:
  """Any replacement within the budget, slot by slot; `knob` is the seed."""
  del probabilities
  rng = np.random.default_rng(int(layer.knob))
  parts, own = instance.deviations(
    gates, expert_ids, np.asarray(layer.dissimilarity, np.float64)
  )
  can = np.append(np.isfinite(layer.marginal_j[:, 0]), True)
  columns, left = own.copy(), np.full(len(gates), float(layer.budget))
  rows = np.arange(len(gates))
  for slot in range(gates.shape[1]):
    is_open = (parts[:, slot] <= left[:, None]) & can[None]
    draws = np.where(is_open, rng.uniform(size=is_open.shape), -1.0)
    pick = draws.argmax(axis=1)
    columns[:, slot] = np.where(is_open.any(axis=1), pick, own[:, slot])
    left = left - parts[rows, slot, columns[:, slot]]
  ids = instance.to_ids(columns, len(layer.dissimilarity))
  return lose_late(ids, gates, layer)


def lose_late(ids: np.ndarray, gates: np.ndarray, layer: Layer) -> Pairs:
  """Skips the pairs that their experts cannot serve any more.

  Args:
    ids: [n, K].
    gates: [n, K]; those of skipped pairs become 0.
    layer: whose marginal energies tell how many each expert serves.
  """
  is_kept = _is_served(ids, layer, np.arange(ids.size))
  return np.where(is_kept, ids, NO_EXPERT), np.where(is_kept, gates, 0.0)


def _is_served(ids: np.ndarray, layer: Layer, order: np.ndarray) -> np.ndarray:
  """[n, K] bool: pairs that their experts serve, the first ones in `order`."""
  most = np.isfinite(layer.marginal_j).sum(axis=1)
  flat = ids.reshape(-1)[order]
  # The place of each pair among its expert's.
  is_expert = flat[:, None] == np.arange(len(most))
  place = (np.cumsum(is_expert, axis=0) - 1)[
    np.arange(len(flat)), np.maximum(flat, 0)
  ]
  is_kept = np.empty(ids.size, bool)
  is_kept[order] = (flat >= 0) & (place < most[np.maximum(flat, 0)])
  return is_kept.reshape(ids.shape)


def _practical(
  ids: np.ndarray, gates: np.ndarray, is_kept: np.ndarray, layer: Layer
) -> Pairs:
  return lose_late(np.where(is_kept, ids, NO_EXPERT), gates, layer)


POLICIES: dict[str, Policy] = {
  "siftmoe": sift,
  "ideal_top_k": ideal_top_k,
  "practical_top_k": practical_top_k,
  "wdmoe": wdmoe,
  "adapmoe": adapmoe,
  "des": dynamic_selection,
  "sere": sere,
  "random": random_replacement,
}
