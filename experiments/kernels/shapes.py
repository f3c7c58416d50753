"""Shapes of real MoE blocks, and the least that a device must do for them.

Letters: N tokens, E experts, K experts per token, D model width, F an expert's
hidden width. A floor is the larger of two times: the bytes that must move over
the measured bandwidth, and the floating-point operations over the measured
rate of a large matrix product.
"""

import dataclasses
from typing import Any, NamedTuple

from tanbr_jax import models

ITEM = 2  # Bytes of a bfloat16.


@dataclasses.dataclass(frozen=True)
class Shape:
  """An MoE block.

  Attributes:
    title: the model that it is from.
    num_experts: E.
    num_selected: K.
    model_dim: D.
    expert_dim: F.
    activation: of the experts.
    is_gated: whether an expert has a third matrix, as in SwiGLU.
    renormalise: whether a token's gates are scaled to sum to one.
    shared_dim: hidden width of the shared experts together; 0 without.
    model_type: of transformers.
  """

  title: str
  num_experts: int
  num_selected: int
  model_dim: int
  expert_dim: int
  activation: str = "silu"
  is_gated: bool = True
  renormalise: bool = False
  shared_dim: int = 0
  model_type: str = ""

  @property
  def matrix_bytes(self) -> int:
    """Bytes of all experts' first matrix, [E, D, F]."""
    return self.num_experts * self.model_dim * self.expert_dim * ITEM

  @property
  def expert_parameters(self) -> int:
    """Parameters of one expert."""
    return (2 + self.is_gated) * self.model_dim * self.expert_dim

  @property
  def shared_parameters(self) -> int:
    """Parameters of the shared experts."""
    return (2 + self.is_gated) * self.model_dim * self.shared_dim


def _of(preset: str, title: str, model_type: str = "", **changes: Any) -> Shape:
  """The MoE block of a model of `models.PRESETS`, with changes."""
  config = models.preset(preset, **changes)
  values = {**vars(config), "renormalise": config.router.renormalise}
  names = values.keys() & {field.name for field in dataclasses.fields(Shape)}
  shape = {name: values[name] for name in names}
  shape["shared_dim"] = shape["shared_dim"] or 0
  return Shape(title=title, model_type=model_type, **shape)


def _switch(num_experts: int) -> Shape:
  """Switch-base, whose FFNs are T5-base's."""
  return _of(
    "t5_base_x8",
    f"Switch-base-{num_experts}",
    "switch_transformers",
    num_experts=num_experts,
    num_selected=1,
  )


SHAPES = {
  "mixtral": _of("mixtral_8x7b", "Mixtral-8x7B", "mixtral"),
  "olmoe": _of("olmoe_1b_7b", "OLMoE-1B-7B", "olmoe"),
  "qwen3": _of("qwen3_30b_a3b", "Qwen3-30B-A3B", "qwen3_moe"),
  "deepseek": Shape(
    "DeepSeek-V2-Lite",
    64,
    6,
    2048,
    1408,
    shared_dim=2816,
    model_type="deepseek_v2",
  ),
  "switch8": _switch(8),
  "switch64": _switch(64),
  "switch128": _switch(128),
  # The paper's T5-base with 8 experts. Its K is not stated: with K = 1 it is
  # Switch-base-8, so the other usual choice is taken here.
  "t5": _of(
    "t5_base_x8",
    "T5-base x 8, K = 2",
    num_selected=2,
    router=models.RouterOptions(renormalise=True),
  ),
  # For a try on a CPU.
  "tiny": Shape("tiny", 4, 2, 64, 128, renormalise=True, model_type="mixtral"),
  "tiny_plain": Shape(
    "tiny, plain, shared",
    4,
    1,
    64,
    128,
    activation="relu",
    is_gated=False,
    shared_dim=64,
  ),
}


class Work(NamedTuple):
  """The least that must be done.

  Attributes:
    num_bytes: read or written, each input once and each output once.
    flops: floating-point operations.
  """

  num_bytes: float
  flops: float = 0.0


class Ceilings(NamedTuple):
  """Rates that a device reaches.

  Attributes:
    copy: bytes per second, read and written, of a large copy.
    read: bytes per second of a large reduction.
    matmul: floating-point operations per second of a large matrix product.
  """

  copy: float
  read: float
  matmul: float


def floor_seconds(work: Work, ceilings: Ceilings) -> float:
  """The time that no implementation can beat by much."""
  bandwidth = max(ceilings.copy, ceilings.read)
  return max(work.num_bytes / bandwidth, work.flops / ceilings.matmul)


def routed_work(
  shape: Shape, num_tokens: int, *, num_pairs: float, num_active: float
) -> Work:
  """A routed block, its router included.

  Args:
    shape: of the block.
    num_tokens: N.
    num_pairs: token-expert pairs that are computed; N K unless some are masked.
    num_active: experts that have any of these pairs.
  """
  router = shape.model_dim * shape.num_experts
  weights = num_active * shape.expert_parameters + shape.shared_parameters
  tokens = 2 * num_tokens * shape.model_dim
  flops = num_pairs * shape.expert_parameters + num_tokens * (
    shape.shared_parameters + router
  )
  return Work(ITEM * (weights + router + tokens), 2 * flops)


def merged_work(shape: Shape, num_tokens: int) -> Work:
  """The dense block that merging makes, shared experts beside it."""
  weights = shape.expert_parameters + shape.shared_parameters
  tokens = 2 * num_tokens * shape.model_dim
  return Work(ITEM * (weights + tokens), 2 * num_tokens * weights)


def grouped_work(shape: Shape, num_rows: int, *, num_active: float) -> Work:
  """The experts' matrix products alone, on rows that are sorted already."""
  weights = num_active * shape.expert_parameters
  return Work(
    ITEM * (weights + 2 * num_rows * shape.model_dim),
    2 * num_rows * shape.expert_parameters,
  )


def part_work(
  shape: Shape, num_tokens: int, *, num_active: float
) -> dict[str, Work]:
  """The least work of each part of the routed block.

  Args:
    shape: of the block.
    num_tokens: N.
    num_active: experts that have any token.
  """
  num_rows = num_tokens * shape.num_selected
  router = shape.model_dim * shape.num_experts
  x, rows = num_tokens * shape.model_dim, num_rows * shape.model_dim
  ids = 4 * num_rows  # int32 or float32, one for each pair.
  return {
    "route": Work(
      ITEM * (x + router) + 2 * ids, 2 * num_tokens * router
    ),  # Ids and gates are written.
    "sort": Work(3 * ids),  # Ids are read, places and sources are written.
    "dispatch": Work(ITEM * (x + rows) + ids),
    "grouped_ffn": grouped_work(shape, num_rows, num_active=num_active),
    "combine": Work(ITEM * (x + rows) + 2 * ids),
  }


def merging_bytes(shape: Shape, num_merges: int) -> int:
  """Bytes to merge one matrix: experts read once, each result written once."""
  result = shape.matrix_bytes // shape.num_experts
  return shape.matrix_bytes + num_merges * result
