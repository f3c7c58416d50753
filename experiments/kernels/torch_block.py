"""The routed block in PyTorch, on its grouped matrix product, as a peer.

Written as PyTorch is used best here: gate and up are one product over stacked
weights, no step waits for the device, and the calls of all inputs are one CUDA
graph. Letters: N tokens, E experts, K experts per token, D model width, F
hidden width of an expert.
"""

import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from experiments.kernels import inputs as kernel_inputs
from experiments.kernels.shapes import ITEM, Shape
from experiments.kernels.torch_queue import TorchQueue, attempt, device

# How weights lie in memory, and how the K rows of a token are added.
LAYOUTS = ("out_in", "in_out")
SUMS = ("unsort", "index_add")


class Weights(NamedTuple):
  """Weights of a block, on PyTorch's device.

  Attributes:
    router: [E, D].
    up: [E, 2 F, D], gate first, or [E, F, D] of plain experts.
    down: [E, D, F].
    shared_up: [2 F', D], or [F', D], or None.
    shared_down: [D, F'], or None.
  """

  router: Any
  up: Any
  down: Any
  shared_up: Any = None
  shared_down: Any = None


def weight_sets(shape: Shape) -> list[Weights]:
  """Random weights as many sets as JAX's rows rotate over."""
  import torch

  torch.manual_seed(0)
  count = kernel_inputs.num_sets(
    ITEM * shape.num_experts * shape.expert_parameters
  )
  return [_weights(shape) for _ in range(count)]


def _weights(shape: Shape) -> Weights:
  dim, hidden, experts = shape.model_dim, shape.expert_dim, shape.num_experts
  wide = 1 + shape.is_gated
  shared = shape.shared_dim
  return Weights(
    router=_normal(experts, dim),
    up=_normal(experts, wide * hidden, dim),
    down=_normal(experts, dim, hidden),
    shared_up=_normal(wide * shared, dim) if shared else None,
    shared_down=_normal(dim, shared) if shared else None,
  )


def _normal(*size: int) -> Any:
  """Normal numbers whose product with unit rows has unit variance."""
  import torch

  out = torch.randn(*size, device=device(), dtype=torch.bfloat16)
  return out.mul_(size[-1] ** -0.5)


def token_sets(shape: Shape, num_tokens: int) -> list[Any]:
  """Tokens [N, D] as many sets as JAX's rows rotate over."""
  import torch

  num_bytes = ITEM * num_tokens * shape.model_dim
  count = kernel_inputs.num_sets(num_bytes, least=4)
  size = (num_tokens, shape.model_dim)
  return [
    torch.randn(*size, device=device(), dtype=torch.bfloat16)
    for _ in range(count)
  ]


def as_in_out(weights: Weights) -> Weights:
  """Copies the weights into the layouts [E, D, 2 F] and [E, F, D] in memory."""
  return weights._replace(
    up=weights.up.transpose(1, 2).contiguous().transpose(1, 2),
    down=weights.down.transpose(1, 2).contiguous().transpose(1, 2),
  )


def block(weights: Weights, x: Any, *, shape: Shape, add: str = SUMS[0]) -> Any:
  """The routed block of tokens x [N, D].

  Args:
    weights: in either layout.
    x: [N, D].
    shape: of the block.
    add: "unsort" gathers each token's K rows back and sums them, "index_add"
      adds the rows where they belong.
  """
  import torch

  gates, ids = _route(weights, x, shape)
  sorted_ids, order = torch.sort(ids.reshape(-1), stable=True)
  groups = torch.arange(shape.num_experts, device=x.device)
  ends = torch.searchsorted(sorted_ids, groups, right=True).to(torch.int32)
  tokens = order // shape.num_selected
  rows = x.index_select(0, tokens)
  multiply = _grouped_mm()
  hidden = _activate(
    multiply(rows, weights.up.transpose(1, 2), offs=ends), shape
  )
  rows = multiply(hidden, weights.down.transpose(1, 2), offs=ends)
  if add == "unsort":
    place = torch.empty_like(order)
    place[order] = torch.arange(order.numel(), device=x.device)
    rows = rows.index_select(0, place).view(*ids.shape, -1)
    out = (rows * gates.to(x.dtype)[..., None]).sum(1)
  else:
    rows = rows * gates.reshape(-1, 1)[order].to(x.dtype)
    out = torch.zeros_like(x).index_add_(0, tokens, rows)
  if weights.shared_up is None:
    return out
  hidden = _activate(x @ weights.shared_up.T, shape)
  return out + hidden @ weights.shared_down.T


def _route(weights: Weights, x: Any, shape: Shape) -> tuple[Any, Any]:
  import torch

  probabilities = torch.softmax((x @ weights.router.T).float(), dim=-1)
  gates, ids = torch.topk(probabilities, shape.num_selected, dim=-1)
  if shape.renormalise:
    gates = gates / gates.sum(-1, keepdim=True)
  return gates, ids


def _activate(hidden: Any, shape: Shape) -> Any:
  from torch.nn import functional

  function = getattr(functional, shape.activation)
  if not shape.is_gated:
    return function(hidden)
  gate, up = hidden.chunk(2, dim=-1)
  return function(gate) * up


def _grouped_mm() -> Callable[..., Any]:
  import torch

  functional = torch.nn.functional
  return getattr(functional, "grouped_mm", None) or torch._grouped_mm


def queues(
  shape: Shape,
  weights: Sequence[Weights],
  tokens: Sequence[Any],
  *,
  pool: Any = None,
) -> dict[str, TorchQueue | Exception]:
  """The block in every layout and way to add, or the error of making it."""
  found: dict[str, TorchQueue | Exception] = {}
  layouts = {"out_in": weights, "in_out": [as_in_out(w) for w in weights]}
  for layout, add in itertools.product(LAYOUTS, SUMS):

    def call(weights: Weights, x: Any, add: str = add) -> Any:
      return block(weights, x, shape=shape, add=add)

    inputs = kernel_inputs.zipped(layouts[layout], tokens)
    found[f"torch/{layout}/{add}"] = attempt(call, inputs, pool=pool)
  return found
