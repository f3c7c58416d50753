"""How well scores rank experts by what their loss costs.

Letters: L layers, E experts, V domains, W windows.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy.stats

from experiments.compress import methods
from tanbr_jax import compress


def spearman(ours: np.ndarray, theirs: np.ndarray) -> float:
  """The rank correlation; NaN where one of them is the same for all."""
  if np.ptp(ours) == 0 or np.ptp(theirs) == 0:
    return float("nan")
  ranks = scipy.stats.rankdata(ours), scipy.stats.rankdata(theirs)
  return float(np.corrcoef(*ranks)[0, 1])


def by_layer(ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
  """[L], of [L, E] each."""
  return np.array(
    [spearman(one, other) for one, other in zip(ours, theirs, strict=True)]
  )


def rows(
  names: Sequence[str],
  statistics: Sequence[compress.CalibrationStatistics],
  changes: np.ndarray,
  *,
  seed: int,
) -> list[dict[str, Any]]:
  """A row for each score, layer and kind of truth.

  "rho" is with the change of a domain's loss, mean over the domains'
  specialists; "rho_per_token" with that change for each token of the expert in
  calibration text, which takes out how often it is used; "rho_generalist" is of
  pooled scores with the mean change. Besides the scores there is one row of the
  truth itself: of half of the windows with the other half.

  Args:
    names: of `methods.SCORED`.
    statistics: of V domains.
    changes: [L, E, V, W], see `measures.leave_one_out`.
    seed: of the calibration.
  """
  truth = changes.mean(axis=3)  # [L, E, V]
  tokens = np.stack([one.num_pairs for one in statistics], axis=2)
  per_token = truth / np.maximum(tokens, 1)
  num_domains = truth.shape[2]
  found = []

  def add(name: str, **values: np.ndarray) -> None:
    for layer in range(len(truth)):
      row = {key: float(value[layer]) for key, value in values.items()}
      found.append({"seed": seed, "method": name, "layer": layer, **row})

  for name in names:
    own = [
      methods.scores(name, [one], pooling="tokens", seed=seed)
      for one in statistics
    ]
    pooled = methods.scores(name, statistics, pooling="tokens", seed=seed)
    add(
      name,
      rho=_mean([by_layer(own[v], truth[:, :, v]) for v in range(num_domains)]),
      rho_per_token=_mean(
        [by_layer(own[v], per_token[:, :, v]) for v in range(num_domains)]
      ),
      rho_generalist=by_layer(pooled, truth.mean(axis=2)),
    )
  halves = changes[..., ::2].mean(axis=3), changes[..., 1::2].mean(axis=3)
  add(
    "(the truth's other half)",
    rho=_mean(
      [
        by_layer(halves[0][:, :, v], halves[1][:, :, v])
        for v in range(num_domains)
      ]
    ),
    rho_generalist=by_layer(halves[0].mean(axis=2), halves[1].mean(axis=2)),
  )
  return found


def _mean(values: Sequence[np.ndarray]) -> np.ndarray:
  """The mean over what is there; NaN where nothing is."""
  stacked = np.stack(values)
  counts = np.isfinite(stacked).sum(axis=0)
  total = np.nansum(stacked, axis=0)
  return np.where(counts > 0, total / np.maximum(counts, 1), np.nan)
