"""Prefill with one expert a token: successive shortest augmenting paths.

The energy depends on the experts' loads alone, so that the residual network
has only the experts as nodes: e -> f where some token of e may go to f, at no
cost. The shortest path of a new token ends at the reachable expert with the
least next marginal. With ascending marginals (a convex energy) every such step
keeps the optimum of the tokens so far (minimum-cost flow, Ahuja et al., 1993);
[R] which method the paper uses is not public.

Letters: N tokens, E experts.
"""

import numpy as np

from tanbr_jax.wireless import instance
from tanbr_jax.wireless.instance import InfeasibleError, Instance


def solve(one: Instance) -> np.ndarray:
  """The columns [N, 1] of least energy.

  Args:
    one: with K = 1 and ascending marginals.

  Raises:
    InfeasibleError: a token cannot be served.
  """
  num_experts = one.num_experts
  allowed = np.isfinite(one.deviation[:, 0])
  columns = np.full(len(allowed), num_experts)
  # Skipping costs nothing, so who may skip does.
  waits = np.flatnonzero(~allowed[:, num_experts])
  # Tokens that may go to the same experts are one kind.
  kinds, kind_of = np.unique(
    allowed[waits, :num_experts], axis=0, return_inverse=True
  )
  kind_of = kind_of.reshape(-1).tolist()
  targets = [np.flatnonzero(row).tolist() for row in kinds]
  at = [[[] for _ in targets] for _ in range(num_experts)]
  next_cost = one.marginal.tolist()
  loads = [0] * num_experts
  own = one.own[waits, 0].tolist()
  for place, token in enumerate(waits.tolist()):
    kind = kind_of[place]
    end, came = _search(kind, own[place], targets, at, next_cost, loads)
    if end is None:
      raise InfeasibleError(instance.explain(one, token))
    loads[end] += 1
    # Back along the path: each expert on it hands one token on.
    while came[end] is not None:
      before, moved = came[end]
      at[end][moved].append(at[before][moved].pop())
      end = before
    at[end][kind].append(token)
  for expert, groups in enumerate(at):
    for tokens in groups:
      columns[tokens] = expert
  return columns[:, None]


def _search(
  kind: int,
  own: int,
  targets: list[list[int]],
  at: list[list[list[int]]],
  next_cost: list[list[float]],
  loads: list[int],
) -> tuple[int | None, dict[int, tuple[int, int] | None]]:
  """The reachable expert of least next marginal, and how it was reached.

  The router's own expert comes first, and only less energy takes its place.
  """
  first = targets[kind]
  if own in first:
    first = [own] + [expert for expert in first if expert != own]
  came: dict[int, tuple[int, int] | None] = {expert: None for expert in first}
  queue, best, end = list(first), np.inf, None
  for expert in queue:
    cost = next_cost[expert][loads[expert]]
    if cost < best:
      best, end = cost, expert
    for moved, tokens in enumerate(at[expert]):
      if tokens:
        for other in targets[moved]:
          if other not in came:
            came[other] = (expert, moved)
            queue.append(other)
  return end, came
