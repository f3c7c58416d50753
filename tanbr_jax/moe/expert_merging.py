"""Merging: the weighted sum of experts is one dense block.

Letters: E experts, R vectors of merge weights.
"""

import jax

from tanbr_jax import kernels
from tanbr_jax.moe.experts import Experts
from tanbr_jax.moe.feed_forward import FeedForward
from tanbr_jax.moe.parameters import ARRAYS, check_arrays, check_weights
from tanbr_jax.simplex.points import check_simplex


def merge(
  experts: Experts,
  merge_weights: jax.Array,
  *,
  off_simplex: str = "allow",
  implementation: str | None = None,
) -> FeedForward:
  """Averages the experts into one dense block, or into R of them at once.

  All parameters are averaged, biases too; what the experts share is carried
  over as it is, without an R axis. An expert of weight exactly 0 adds nothing,
  even if its parameters are not finite.

  Args:
    experts: E stacked experts.
    merge_weights: floating [E], or [R, E] for R >= 1 blocks in one pass over
      the experts.
    off_simplex: "allow" takes any real weights as they are, which task
      arithmetic and gradients need; "raise" refuses weights that
      `simplex.points.check_simplex` does. Weights are never rescaled.
    implementation: of `kernels.weighted_sum`.

  Returns:
    The block whose parameters are the weighted sums of the experts': 1/E of
    their bytes. With [R, E] weights every array but the shared ones has a
    leading R axis.

  Raises:
    ValueError: if the weights are no floating array of such a shape, the
      experts are not stacked, `off_simplex` is unknown, or it is "raise" and
      the weights are off the simplex or traced.
  """
  # First what cannot be averaged, or not with these weights, is refused.
  check_arrays(experts)
  if experts.w_in.ndim != 3:
    raise ValueError(
      f"experts must have w_in [E, D, F], got w_in {experts.w_in.shape}"
    )
  check_weights("merge_weights", merge_weights, experts.num_experts)
  if off_simplex not in ("allow", "raise"):
    raise ValueError(
      f"off_simplex must be 'allow' or 'raise', got {off_simplex!r}"
    )
  if off_simplex == "raise":
    check_simplex("merge_weights", merge_weights)
  # Every array that the experts have is averaged, biases too.
  arrays = {name: getattr(experts, name) for name in ARRAYS}
  merged = {
    name: kernels.weighted_sum(
      array, merge_weights, implementation=implementation
    )
    for name, array in arrays.items()
    if array is not None
  }
  # What the experts share needs no average.
  return FeedForward(
    **merged,
    shared=experts.shared,
    shared_gate=experts.shared_gate,
    activation=experts.activation,
  )
