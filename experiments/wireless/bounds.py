"""How far outputs move under SiftMoE, against what was said before.

Letters: L layers, N tokens, R realisations.
"""

from typing import NamedTuple

import jax
import numpy as np

from experiments.wireless.studies import Ready, inputs_of
from tanbr_jax.wireless import deviation, propagation, reroutes


class Bounds(NamedTuple):
  """Deviations of tokens under SiftMoE at one budget, all layers.

  Attributes:
    measured: [L, N].
    bound: [L, N].
    estimates: by statistic, [L, N].
    predicted: [R], the sum over layers by the calibrated sensitivities.
    together: [R], the logits' deviations.
  """

  measured: np.ndarray
  bound: np.ndarray
  estimates: dict[str, np.ndarray]
  predicted: np.ndarray
  together: np.ndarray


def measure(ready: Ready) -> Bounds:
  """How far outputs move, and what was said before; a window a realisation."""
  each = len(ready.text.test) // len(ready.realised.costs[0])
  reroute = reroutes.reroute(
    "siftmoe",
    dissimilarity=ready.table,
    marginal_j=ready.realised.marginal_j,
    budgets=ready.settings.sweep.link_share * ready.skips,
  )
  ids = inputs_of(ready.text.test[::each])
  apply = jax.jit(
    lambda params, observe: ready.model.apply(params, ids, observe=observe)[1]
  )
  estimates, seen = {}, None
  for name, table in ready.tables.items():
    seen = apply(
      ready.params, deviation.observe_deviations(reroute, table.values)
    )
    estimates[name] = np.asarray(seen.estimate)
  measured = np.asarray(seen.measured, np.float64)
  squares = np.square(measured).reshape(len(measured), len(ids), -1)
  layers = np.sqrt(squares.sum(axis=2))
  return Bounds(
    measured,
    np.asarray(seen.bound),
    estimates,
    ready.sensitivities @ layers,
    propagation.together(ready.model, ready.params, ids, reroute),
  )


def figures(found: Bounds) -> dict[str, float]:
  """Coverage and tightness as flat keys."""
  flat = {}
  moved = found.measured > 0
  if moved.any():
    ratio = found.measured[moved] / found.bound[moved]
    flat["bound/median_tightness"] = float(np.median(ratio))
    flat["bound/largest_ratio"] = float(ratio.max())
  for name, estimate in found.estimates.items():
    flat[f"bound/coverage_{name}"] = deviation.coverage(
      found.measured, estimate
    )
  is_moved = found.predicted > 0
  if is_moved.any():
    ratio = found.together[is_moved] / found.predicted[is_moved]
    flat["bound/propagated_median"] = float(np.median(ratio))
    flat["bound/propagated_largest"] = float(ratio.max())
  return flat
