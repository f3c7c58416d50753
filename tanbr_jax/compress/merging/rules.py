"""Who is merged with whom in a layer, by the rules of `catalogue.GROUPINGS`.

Letters: E experts, G groups, L layers.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from tanbr_jax.compress.merging import grouping
from tanbr_jax.compress.merging.grouping import Grouping
from tanbr_jax.compress.scores import score
from tanbr_jax.compress.statistics import CalibrationStatistics


def group(
  rule: str | np.ndarray,
  statistics: CalibrationStatistics,
  layer: int,
  num_groups: int,
  use: np.ndarray,
  options: Mapping[str, Any],
) -> Grouping:
  """The groups of a layer's experts.

  Args:
    rule: a key of `catalogue.GROUPINGS`, or labels [L, E].
    statistics: with what the rule needs.
    layer: which.
    num_groups: G.
    use: [E], how much each expert is used: the best is its group's centre.
    options: max_group_size and seed, where the rule has them.
  """
  if not isinstance(rule, str):
    return grouping.of_labels(np.asarray(rule)[layer], use)
  if rule == "router_logits":
    likeness = _cosines(statistics.logit_products[layer])
    return grouping.nearest_centre(likeness, use, num_groups)
  if rule == "ream":
    return grouping.nearest_centre(
      _ream_likeness(statistics, layer),
      score("reap", statistics)[layer],
      num_groups,
      max_group_size=options.get("max_group_size", 16),
    )
  means = statistics.all_outputs[layer] / max(statistics.num_tokens, 1)
  if rule == "mean_output":
    labels = grouping.hierarchical(means, num_groups)
  else:
    labels = grouping.k_means(means, num_groups, seed=options.get("seed", 0))
  return grouping.of_labels(labels, use)


def _ream_likeness(statistics: CalibrationStatistics, layer: int) -> np.ndarray:
  """[E, E]: the mean likeness of gates over tokens and of gated outputs.

  [R]: gates are the router's probabilities. Both likenesses are in [0, 1]: of
  outputs (1 + cos) / 2, of gates one minus the distance of unit vectors in
  units of the largest.
  """
  outputs = statistics.gated_outputs[layer]
  by_output = (1 + _cosines(outputs @ outputs.T)) / 2
  cosines = _cosines(statistics.probability_products[layer])
  distance = np.sqrt(np.maximum(2 - 2 * cosines, 0))
  by_gate = 1 - distance / max(distance.max(), 1e-30)
  return (by_output + by_gate) / 2


def _cosines(products: np.ndarray) -> np.ndarray:
  norms = np.sqrt(np.maximum(np.diag(products), 0))
  return products / np.maximum(np.outer(norms, norms), 1e-30)
