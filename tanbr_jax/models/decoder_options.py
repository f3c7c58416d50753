"""Options of a decoder's routers and of its attention."""

import dataclasses

from tanbr_jax import moe
from tanbr_jax.checks import ranges
from tanbr_jax.checks.names import check_choice
from tanbr_jax.checks.ranges import (
  Count,
  NonNegative,
  Positive,
  Real,
  Whole,
)
from tanbr_jax.moe import routers

QUERY_KEY_NORMS = (None, "head", "projection")
# "sparsemixer" is `moe.sparsemixer`, the others are scores of `moe.top_k`.
SCORES = (*routers.SCORES, "sparsemixer")


@dataclasses.dataclass(frozen=True, kw_only=True)
class RouterOptions(ranges.Checked):
  """From a router's logits to experts and gates; see `moe.top_k`.

  Attributes:
    scores: one of `SCORES`.
    renormalise: whether a token's K gates are scaled to sum to one.
    gate_scale: what all gates are multiplied with at last.
    groups: limits the selection to a few groups of experts; None for all.
    has_bias: whether the logits have a bias.
    has_correction_bias: whether a bias is added for the selection only.
    tolerance: of "sparsemixer": how far below the best logit, in parts of it,
      half of what still counts may be.
  """

  scores: str = "softmax"
  renormalise: bool = True
  gate_scale: Real = 1.0
  groups: moe.GroupLimit | None = None
  has_bias: bool = False
  has_correction_bias: bool = False
  tolerance: NonNegative = 0.01

  def __post_init__(self) -> None:
    """Refuses values that cannot be.

    Raises:
      ValueError: if `scores` is none of `SCORES`, or a number out of range.
    """
    super().__post_init__()
    check_choice("scores", self.scores, SCORES)


@dataclasses.dataclass(frozen=True, kw_only=True)
class AttentionOptions(ranges.Checked):
  """What may be added to plain causal attention.

  Attributes:
    query_key_norm: RMSNorm of queries and keys: of each head (Qwen3), of the
      whole projection (OLMoE), or None.
    has_bias: whether queries, keys and values have biases.
    has_output_bias: whether the output has one.
    has_sinks: whether each head has a logit that takes attention from all
      positions and gives nothing (GPT-OSS, 2025).
    clip: queries, keys and values are clipped to [-clip, clip] after their
      norms; None for not.
    scale: of the products of queries and keys; None for W^-1/2.
    window: a position sees itself and the `window - 1` before; None for all.
    full_layers: layers that see all positions in spite of the window.
  """

  query_key_norm: str | None = None
  has_bias: bool = False
  has_output_bias: bool = False
  has_sinks: bool = False
  clip: Positive | None = None
  scale: Positive | None = None
  window: Count | None = None
  full_layers: tuple[Whole, ...] = ()

  def __post_init__(self) -> None:
    """Refuses values that cannot be.

    Raises:
      ValueError: if the norm is unknown, or a number out of range.
    """
    super().__post_init__()
    check_choice("query_key_norm", self.query_key_norm, QUERY_KEY_NORMS)

  def window_of(self, layer: int) -> int | None:
    """The window of a layer, None where it sees all positions."""
    return None if layer in self.full_layers else self.window
