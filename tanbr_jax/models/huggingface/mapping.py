"""Between our parameters and the tensors of a checkpoint, both ways.

A `Piece` says which part of one of our leaves is which part of one of their
tensors. Reading and writing follow the same list. Letters: D model width, E
experts, F hidden width, H query heads, G key and value heads, W a head's width,
V vocabulary.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from tanbr_jax.models.decoder_config import DecoderConfig
from tanbr_jax.models.decoder_norm import BIAS

Index = tuple[int | slice, ...]
Shape = tuple[int, ...]


class Part(NamedTuple):
  """One of several equal parts of a tensor along an axis.

  Attributes:
    index: which one.
    count: how many there are.
    axis: negative, of the tensor.
    is_interleaved: whether every count-th row is of the part and not a run.
  """

  index: int
  count: int
  axis: int
  is_interleaved: bool = False

  def of(self, shape: Shape) -> Index:
    """The index of the part in a tensor of that shape."""
    if self.is_interleaved:
      rows = slice(self.index, None, self.count)
    else:
      size = shape[self.axis] // self.count
      rows = slice(self.index * size, (self.index + 1) * size)
    return (*[slice(None)] * (len(shape) + self.axis), rows)


class Piece(NamedTuple):
  """What one leaf and one tensor have in common.

  Attributes:
    leaf: our leaf, "layer_0/attention/output".
    key: their tensor, "model.layers.0.self_attn.o_proj.weight".
    at: which part of our leaf; () for all.
    part: which part of their tensor; None for all.
    is_transposed: whether the last two axes of the tensor are the other way.
    lead: axes of size 1 that the tensor has in front, besides.
  """

  leaf: str
  key: str
  at: Index = ()
  part: Part | None = None
  is_transposed: bool = False
  lead: int = 0

  def tensor_shape(self, leaf_shape: Shape) -> Shape:
    """The shape that their tensor must have."""
    shape = np.broadcast_to(np.empty(()), leaf_shape)[self.at].shape
    if self.is_transposed:
      shape = (*shape[:-2], shape[-1], shape[-2])
    if self.part is not None:
      sizes = list(shape)
      sizes[self.part.axis] *= self.part.count
      shape = tuple(sizes)
    return (*[1] * self.lead, *shape)

  def of_tensor(self, tensor: np.ndarray) -> np.ndarray:
    """A view of the part of their tensor, in their order of axes."""
    tensor = tensor[(0,) * self.lead]
    return tensor if self.part is None else tensor[self.part.of(tensor.shape)]


def tensor_shapes(
  pieces: Sequence[Piece], leaf_shapes: Mapping[str, Shape]
) -> dict[str, Shape]:
  """The shape of each of their tensors."""
  return {p.key: p.tensor_shape(leaf_shapes[p.leaf]) for p in pieces}


def outside_layers(config: DecoderConfig) -> list[Piece]:
  """The embedding, the last norm and the output head."""
  pieces = [
    Piece("embedding", "model.embed_tokens.weight"),
    *norm("final_norm", "model.norm", config),
  ]
  if not config.tied:
    pieces.append(Piece("head", "lm_head.weight"))
  if config.has_head_bias:
    pieces.append(Piece("head_bias", "lm_head.bias"))
  return pieces


def norm(leaf: str, key: str, config: DecoderConfig) -> list[Piece]:
  """A norm's scale, and its bias if it has one."""
  pieces = [Piece(leaf, f"{key}.weight")]
  if config.norm == "layer":
    pieces.append(Piece(leaf + BIAS, f"{key}.bias"))
  return pieces


def attention(config: DecoderConfig, layer: int) -> list[Piece]:
  """Attention and the two norms of a layer."""
  leaf, key = f"layer_{layer}", f"model.layers.{layer}"
  own, theirs = f"{leaf}/attention", f"{key}.self_attn"
  options = config.attention
  # Ours are side by side in one matrix, theirs in three.
  heads, kv_heads = config.num_heads, config.num_kv_heads
  ends = np.cumsum([0, heads, kv_heads, kv_heads]) * config.head_dim
  pieces = []
  for name, begin, end in zip("qkv", ends, ends[1:], strict=False):
    columns = slice(int(begin), int(end))
    joined, one = f"{own}/query_key_value", f"{theirs}.{name}_proj"
    pieces.append(
      Piece(joined, f"{one}.weight", (slice(None), columns), None, True)
    )
    if options.has_bias:
      pieces.append(Piece(joined + BIAS, f"{one}.bias", (columns,)))
  pieces.append(
    Piece(f"{own}/output", f"{theirs}.o_proj.weight", is_transposed=True)
  )
  if options.has_output_bias:
    pieces.append(Piece(f"{own}/output{BIAS}", f"{theirs}.o_proj.bias"))
  if options.query_key_norm is not None:
    pieces.append(Piece(f"{own}/query_norm", f"{theirs}.q_norm.weight"))
    pieces.append(Piece(f"{own}/key_norm", f"{theirs}.k_norm.weight"))
  if options.has_sinks:
    pieces.append(Piece(f"{own}/sinks", f"{theirs}.sinks"))
  names = ("input_layernorm", "post_attention_layernorm")
  if config.norm_place == "after":
    names = ("post_attention_layernorm", "post_feedforward_layernorm")
  for ours, name in zip(("attention_norm", "ffn_norm"), names, strict=True):
    pieces += norm(f"{leaf}/{ours}", f"{key}.{name}", config)
  return pieces


# Their names of w_gate, w_in and w_out.
PROJECTIONS = ("gate_proj", "up_proj", "down_proj")


def block(
  leaf: str,
  key: str,
  *,
  names: Sequence[str] = PROJECTIONS,
  at: Index = (),
  has_bias: bool = False,
) -> list[Piece]:
  """A gated FFN whose matrices are tensors of their own.

  Args:
    leaf: of our block.
    key: their prefix, with its dot.
    names: of the gate, what it is multiplied with, and the output.
    at: which expert of a stack it is; () for one block.
    has_bias: whether there are biases.
  """
  pieces = []
  for ours, name in zip(("gate", "in", "out"), names, strict=True):
    pieces.append(
      Piece(f"{leaf}/w_{ours}", f"{key}{name}.weight", at, None, True)
    )
    if has_bias:
      pieces.append(Piece(f"{leaf}/b_{ours}", f"{key}{name}.bias", at))
  return pieces


def joined_block(leaf: str, joined: str, out: str) -> list[Piece]:
  """Blocks whose gate and input matrix are one tensor [..., 2 F, D].

  Args:
    leaf: of our block, or of E stacked ones.
    joined: their key of the gate and, after it, what it is multiplied with.
    out: their key of the output [..., D, F].
  """
  return [
    Piece(f"{leaf}/w_gate", joined, (), Part(0, 2, -2), True),
    Piece(f"{leaf}/w_in", joined, (), Part(1, 2, -2), True),
    Piece(f"{leaf}/w_out", out, is_transposed=True),
  ]


def stack(layer: int) -> str:
  """The leaf of a layer's experts."""
  return f"layer_{layer}/experts/stack"


def router(layer: int, key: str, name: str = "kernel") -> Piece:
  """A layer's router; its matrix is transposed, its biases are not."""
  leaf = f"layer_{layer}/experts/router/{name}"
  return Piece(leaf, key, is_transposed=name == "kernel")


def experts(
  config: DecoderConfig,
  layer: int,
  key: str,
  layout: str,
  *,
  names: Sequence[str] = PROJECTIONS,
) -> list[Piece]:
  """A layer's experts in one of the two layouts.

  Args:
    config: the model's shape.
    layer: which one.
    key: their prefix, "model.layers.0.mlp.experts".
    layout: "by_expert", a tensor for each matrix of each expert, or "fused".
    names: of one expert's matrices, see `block`.
  """
  if layout == "fused":
    return joined_block(stack(layer), f"{key}.gate_up_proj", f"{key}.down_proj")
  pieces = []
  for expert in range(config.num_experts):
    pieces += block(stack(layer), f"{key}.{expert}.", names=names, at=(expert,))
  return pieces
