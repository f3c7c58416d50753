"""Predicted Expert Utility (PreMoE, arXiv 2505.17639, section 3), in NumPy.

A token's score of an expert is f(s) if the expert is among the token's K of the
largest logits s and its share p in the softmax over these K is at least r; else
0. An expert's utility is the mean over all tokens, the zeros included. The
default f is max(s, sigmoid(s)): an expert that no token chose scores 0 and
would beat a chosen one whose logits are negative.

Letters: N tokens, E experts, K experts per token, R thresholds.
"""

from collections.abc import Sequence

import numpy as np
from scipy import special

from tanbr_jax.checks.names import check_choice
from tanbr_jax.compress.statistics import TRANSFORMS
from tanbr_jax.moe.parameters import check_number, is_integer

Threshold = str | float | None


def peu(
  router_logits: np.ndarray,
  num_selected: int,
  *,
  transform: str = "max_sigmoid",
  threshold: Threshold = "mean",
  token_mask: np.ndarray | None = None,
) -> np.ndarray:
  """Returns [E] float64, each expert's utility.

  Args:
    router_logits: [N, E] raw.
    num_selected: K, in [1, E]; of equal logits the first are chosen.
    transform: f, one of `TRANSFORMS`: max(s, sigmoid(s)), s, sigmoid(s) or
      exp(s).
    threshold: r: "mean" for the mean over tokens of the largest p, None for no
      threshold, or a number.
    token_mask: [N] bool, False for padding, which counts nowhere; None for
      none.

  Raises:
    ValueError: if a shape or a type is wrong, a name unknown or a number out
      of range.
  """
  logits = np.asarray(router_logits, np.float64)
  if logits.ndim != 2:
    raise ValueError(f"router_logits must be [N, E], got {logits.shape}")
  num_tokens, num_experts = logits.shape
  if not is_integer(num_selected) or not 1 <= num_selected <= num_experts:
    raise ValueError(
      "num_selected must be an integer in [1, E], got "
      f"num_selected={num_selected!r}, E={num_experts}"
    )
  check_choice("transform", transform, TRANSFORMS)
  (threshold,) = check_thresholds((threshold,))
  mask = np.ones(num_tokens, bool)
  if token_mask is not None:
    mask = np.asarray(token_mask)
  if mask.dtype != np.bool_ or mask.shape != (num_tokens,):
    raise ValueError(
      f"token_mask must be bool [{num_tokens}], got {mask.dtype}{mask.shape}"
    )
  ids, values = largest(logits[mask], num_selected)
  r = None
  if threshold is not None:
    r = threshold
    if threshold == "mean":
      r = mean_threshold(*top_probability(values))
  sums = sum_scores(ids, values, num_experts, r)
  return sums[TRANSFORMS.index(transform)] / max(1, int(mask.sum()))


def check_thresholds(
  thresholds: Sequence[Threshold],
) -> tuple[Threshold, ...]:
  """Refuses thresholds that are none of "mean", None and a number.

  Raises:
    ValueError: with the first wrong one.
  """
  for one in thresholds:
    if one is None or one == "mean":
      continue
    if isinstance(one, bool | str) or not np.isscalar(one):
      raise ValueError(
        f"threshold must be 'mean', None or a number, got {one!r}"
      )
    check_number("threshold", one)
  return tuple(
    one if one is None or one == "mean" else float(one) for one in thresholds
  )


def largest(
  logits: np.ndarray, num_selected: int
) -> tuple[np.ndarray, np.ndarray]:
  """The ids and the logits [..., K] of the largest, the first of equal ones."""
  order = np.argsort(-logits, axis=-1, kind="stable")[..., :num_selected]
  return order, np.take_along_axis(logits, order, axis=-1)


def probabilities(values: np.ndarray) -> np.ndarray:
  """The softmax over A(x), of logits [N, K]; -inf is no expert.

  A token without any expert has zeros.
  """
  values = np.asarray(values, np.float64)
  top = values.max(axis=-1, keepdims=True, initial=-np.inf)
  shares = np.exp(values - np.where(np.isfinite(top), top, 0))
  return shares / np.maximum(shares.sum(axis=-1, keepdims=True), 1e-300)


def top_probability(values: np.ndarray) -> tuple[float, float, int]:
  """The sum, the largest and the number of N tokens' largest p."""
  top = probabilities(values).max(axis=-1, initial=0)
  return float(top.sum()), float(top.max(initial=0)), len(top)


def mean_threshold(total: float, most: float, count: int) -> float:
  """r, the mean of the largest p.

  A mean is no larger than the largest value, but its rounding may be: where
  all tokens have the same p, it would drop them all.
  """
  return min(total / max(1, count), most)


def sum_scores(
  ids: np.ndarray, values: np.ndarray, num_experts: int, r: float | None
) -> np.ndarray:
  """[4, E], the sums over tokens of the scores for each of `TRANSFORMS`.

  Args:
    ids: [N, K], A(x).
    values: [N, K], its logits; -inf is no expert.
    num_experts: E.
    r: the threshold, None for none.
  """
  values = np.asarray(values, np.float64)
  is_kept = np.isfinite(values)
  if r is not None:
    is_kept &= probabilities(values) >= r
  ids, values = np.asarray(ids)[is_kept], values[is_kept]
  sigmoid = special.expit(values)
  scores = (np.maximum(values, sigmoid), values, sigmoid, np.exp(values))
  return np.stack(
    [np.bincount(ids, weights=s, minlength=num_experts) for s in scores]
  )
