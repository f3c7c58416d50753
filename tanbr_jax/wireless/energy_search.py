"""Dynamic expert selection: subsets of least energy with enough gate sum.

The neighbours' problem (DES and JESA, 2503.13421): a token takes at most K of E
experts whose scores sum to a quality at least, with the least energy. Solved by
depth-first search whose bound is the linear relaxation of the covering
knapsack; jointly with subcarriers by turns. [R] written from the methods' names
and their published problem, not from their code.

Letters: N tokens, E experts, C subcarriers.
"""

import numpy as np
from scipy import optimize

from tanbr_jax.wireless.instance import InfeasibleError


def cheapest_cover(
  scores: np.ndarray, energy_j: np.ndarray, *, quality: float, most: int
) -> np.ndarray:
  """The subset of least energy whose scores sum to the quality; exact.

  Args:
    scores: [E] at least 0.
    energy_j: [E] at least 0; inf = cannot.
    quality: that the sum has to reach.
    most: of the members.

  Returns:
    The members, ascending.

  Raises:
    ValueError: `most` is below 1 or a score or an energy is negative.
    InfeasibleError: the `most` largest scores do not reach the quality.
  """
  scores, energy = np.asarray(scores, float), np.asarray(energy_j, float)
  if most < 1 or not (scores >= 0).all() or not (energy >= 0).all():
    raise ValueError(
      f"most must be at least 1, scores and energy_j at least 0, got "
      f"most={most}, scores={scores.tolist()}, energy_j={energy.tolist()}"
    )
  can = np.flatnonzero(np.isfinite(energy) & (scores > 0))
  if np.sort(scores[can])[::-1][:most].sum() < quality:
    raise InfeasibleError(
      f"infeasible: quality={quality:g} is not reached by {most} of the "
      f"experts that can serve, {can.tolist()}"
    )
  # By energy per score: the order of the relaxation.
  order = can[np.argsort(energy[can] / scores[can], kind="stable")].tolist()
  score, cost = scores.tolist(), energy.tolist()
  best: list = [np.inf, []]

  def search(place: int, members: list, spent: float, missing: float) -> None:
    # Rounding may leave a sliver: decided by a plain sum.
    if missing <= 1e-12 and scores[sorted(members)].sum() >= quality:
      if spent < best[0]:
        best[:] = [spent, sorted(members)]
      return
    if place == len(order) or len(members) == most:
      return
    # The rest at the best rates, the last of it as a fraction.
    bound, left = spent, missing
    for expert in order[place:]:
      if left <= 0:
        break
      part = min(1.0, left / score[expert])
      bound, left = bound + part * cost[expert], left - score[expert]
    if left > 1e-12 or bound >= best[0]:
      return
    expert = order[place]
    members.append(expert)
    search(place + 1, members, spent + cost[expert], missing - score[expert])
    members.pop()
    search(place + 1, members, spent, missing)

  search(0, [], 0.0, quality)
  return np.array(best[1], np.int64)


def with_subcarriers(
  scores: np.ndarray,
  energy_j: np.ndarray,
  *,
  quality: float,
  most: int,
  most_turns: int = 10,
) -> tuple[list[np.ndarray], np.ndarray]:
  """Experts of every token and a subcarrier for every expert, by turns.

  With subcarriers given, tokens choose by `cheapest_cover`; with loads given,
  subcarriers are assigned by `scipy.optimize.linear_sum_assignment`. The energy
  falls in every turn; the end need not be the best of all.

  Args:
    scores: [N, E].
    energy_j: [E, C] of one state of an expert on a subcarrier, C >= E.
    quality: as for `cheapest_cover`.
    most: as for `cheapest_cover`.
    most_turns: after which it ends.

  Returns:
    The members of each token, and subcarriers [E], each used once.

  Raises:
    ValueError: there are fewer subcarriers than experts.
    InfeasibleError: as `cheapest_cover`.
  """
  num_experts, num_carriers = energy_j.shape
  if num_carriers < num_experts:
    raise ValueError(
      f"energy_j must be [E, C] with C >= E, got {list(energy_j.shape)}"
    )
  loads = np.ones(num_experts)
  energy, chosen, carriers = np.inf, [], np.arange(num_experts)
  for _ in range(most_turns):
    # Experts without load take what is left over.
    weight = np.maximum(loads, 1e-9)[:, None]
    _, assigned = optimize.linear_sum_assignment(weight * energy_j)
    price = energy_j[np.arange(num_experts), assigned]
    members = [
      cheapest_cover(row, price, quality=quality, most=most) for row in scores
    ]
    loads = np.bincount(np.concatenate(members), minlength=num_experts).astype(
      float
    )
    total = float(loads @ price)
    if not total < energy * (1 - 1e-12):
      break
    energy, chosen, carriers = total, members, assigned
  return chosen, carriers
