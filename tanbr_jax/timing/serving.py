"""Costs of serving: routed over all experts, or merged into one block.

Letters: B requests of a slot, S tokens of context, E experts.
"""

from typing import Any

import jax

from tanbr_jax import models
from tanbr_jax.timing import latency


def slot_costs(
  model: models.Model,
  params: models.Params,
  *,
  merge_weights: jax.Array,
  input_ids: jax.Array,
  repeats: int = 50,
) -> dict[str, float]:
  """Times a slot's forward in both forms, and one merge.

  Args:
    model: a model with experts; one of fine-tunes has no routed form.
    params: its parameters.
    merge_weights: [E], of the merged form; times do not depend on them.
    input_ids: [B, S] int32, the slot's requests.
    repeats: timed calls of each, in turns.

  Returns:
    `routed/slot_latency_ms`, `merged/slot_latency_ms` (the dense model, merged
    before) and `merged/merge_ms` (medians, with quartiles `_q1` and `_q3`),
    `merged/latency_saving` (1 - merged / routed), and the bytes of experts that
    each form keeps resident, `routed/expert_bytes` and `merged/expert_bytes`.
    What is of the routed form is absent where there is none.
  """
  # Merged beforehand, because the merge is timed by itself.
  dense, dense_params = models.merge(model, params, merge_weights)
  has_routed = not isinstance(model, models.FineTunes)
  dense_forward = jax.jit(lambda p, ids: dense.apply(p, input_ids=ids))
  merge = jax.jit(lambda p, x: models.merge(model, p, x)[1])
  functions = {
    "merged/slot_latency_ms": lambda: dense_forward(dense_params, input_ids),
    "merged/merge_ms": lambda: merge(params, merge_weights),
  }
  if has_routed:
    routed_forward = jax.jit(lambda p, ids: model.apply(p, input_ids=ids))
    routed = {
      "routed/slot_latency_ms": lambda: routed_forward(params, input_ids)
    }
    functions = routed | functions
  # In turns, so that a slow moment of the machine meets all three.
  times = latency.wall_times(functions, repeats=repeats)
  # Every median has its quartiles beside it.
  found: dict[str, Any] = {}
  for name, time in times.items():
    found |= {name: time.median, f"{name}_q1": time.low}
    found[f"{name}_q3"] = time.high
  if has_routed:
    found["merged/latency_saving"] = 1 - (
      found["merged/slot_latency_ms"] / found["routed/slot_latency_ms"]
    )
    found["routed/expert_bytes"] = models.expert_bytes(params)
  found["merged/expert_bytes"] = models.expert_bytes(dense_params)
  return found
