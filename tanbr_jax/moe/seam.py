"""The seam: what a method sees of a layer of experts, and what it may change.

A layer goes from router logits to a `Routing`, experts and an output. A method
enters at two points, and no model knows which one it runs:

- `reroute = Partial(fn, tree)` with `fn(tree_of_this_layer, MoeInput) ->
  Routing` chooses in the router's place: masks, fewer experts, other experts
  (or an `Adjusted` one, to map the output too);
- `observe = Partial(fn, tree)` with `fn(tree_of_this_layer, MoeInput,
  MoeOutput) -> any pytree` looks at the layer; what it returns is stacked over
  the layers. A dense model, which merging makes, has no router: it takes an
  `observe` alone, which sees its blocks without logits and routing.

Every leaf of a tree has a leading [L], of which a layer gets its own part. The
functions are pure, and for speed one object each: what varies goes in the tree.
Letters: N tokens, E experts, K experts per token, D model width, L layers.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding
from jax.tree_util import Partial

from tanbr_jax import kernels
from tanbr_jax.moe import expert_parallel, feed_forward
from tanbr_jax.moe.experts import Experts
from tanbr_jax.moe.feed_forward import FeedForward
from tanbr_jax.moe.forwards import routed, routed_pairs
from tanbr_jax.moe.routes import Routes, constant_outputs, follow_routes
from tanbr_jax.moe.routing import Routing, all_tokens, apply_mask, keep_pairs

Function = TypeVar("Function", bound=Callable[..., Any])


class MoeInput(NamedTuple):
  """The state of a layer of experts before the experts run.

  Attributes:
    hidden: [N, D], the layer's input.
    router_logits: [N, E] float32, raw; None in a dense model.
    routing: the model's own choice; to `observe`, what was really done; None in
      a dense model.
    token_mask: [N] bool; False is padding, whose pairs are skipped whatever a
      `reroute` chooses.
    experts: the layer's stacked experts, or a dense model's block.
    residual: [N, D], the stream that the layer's output is added to; None where
      the model does not tell.
  """

  hidden: jax.Array
  router_logits: jax.Array | None
  routing: Routing | None
  token_mask: jax.Array
  experts: Experts | FeedForward
  residual: jax.Array | None = None


class MoeOutput(NamedTuple):
  """The outputs of a layer of experts.

  Attributes:
    output: [N, D], that of the whole layer, the shared block's included.
    pair_outputs: [N, K, D], each expert's own output before its gate, zeros
      for skipped pairs; None unless the function that observes is marked with
      `needs_pair_outputs`. Their sum by gate, and the shared block's output,
      is the layer's output.
  """

  output: jax.Array
  pair_outputs: jax.Array | None


class Adjusted(NamedTuple):
  """A routing, and what becomes of the layer's output with it.

  A `reroute` may return it in place of a `Routing`.

  Attributes:
    routing: of N tokens.
    scale: [D], what the layer's output, the shared block's included, is
      multiplied with.
    shift: [D], what is added to it then.
  """

  routing: Routing
  scale: jax.Array
  shift: jax.Array


def needs_pair_outputs(function: Function) -> Function:
  """Marks a function for `observe` that reads `MoeOutput.pair_outputs`.

  A function that calls marked ones needs a mark of its own. What is bound to
  it, by `Partial` or `functools.partial` or as a method, keeps the mark.
  """
  _innermost(function).needs_pair_outputs = True
  return function


def _innermost(function: Any) -> Any:
  while hasattr(function, "func"):
    function = function.func
  return getattr(function, "__func__", function)


def mask_experts(mask: jax.Array) -> Partial:
  """A reroute that skips the pairs whose expert is masked out.

  Args:
    mask: [L, E] bool for all tokens, or [L, N, E]; False is masked out. Gates
      are not scaled up for what is lost.

  Raises:
    ValueError: if the mask is of another type or rank.
  """
  if mask.dtype != jnp.bool_ or mask.ndim not in (2, 3):
    raise ValueError(
      f"mask must be bool [L, E] or [L, N, E], got {mask.dtype}{mask.shape}"
    )
  return Partial(_mask_experts, mask)


def _mask_experts(mask: jax.Array, layer: MoeInput) -> Routing:
  return apply_mask(layer.routing, mask)


def check_seam(
  num_layers: int, num_experts: int | None, **partials: Partial | None
) -> None:
  """Refuses a reroute or an observer that does not fit the model.

  Args:
    num_layers: L.
    num_experts: E, or None for a dense model.
    **partials: `reroute` and `observe`, None where there is none.

  Raises:
    ValueError: if a dense model is given a reroute, one is not a `Partial`, or
      a leaf of its tree has no leading [L].
  """
  for name, partial in partials.items():
    if partial is None:
      continue
    if num_experts is None and name == "reroute":
      raise ValueError("a dense model takes no reroute, got num_experts=None")
    if not isinstance(partial, Partial):
      raise ValueError(
        f"{name} must be a jax.tree_util.Partial, got {type(partial).__name__}"
      )
    shapes = [jnp.shape(leaf) for leaf in jax.tree.leaves(partial)]
    if wrong := [shape for shape in shapes if shape[:1] != (num_layers,)]:
      raise ValueError(
        f"leaves of {name} must be [L, ...] for L={num_layers}, got {wrong[0]}"
      )


def of_layer(partial: Partial | None, layer: int) -> Partial | None:
  """The part of a reroute or an observer that is one layer's."""
  return jax.tree.map(lambda leaf: leaf[layer], partial)


def stack_layers(seen: Sequence[Any]) -> Any:
  """The trees that an observer returned, layer by layer, as one of [L, ...].

  None of no layers.
  """
  if not seen:
    return None
  return jax.tree.map(lambda *leaves: jnp.stack(leaves), *seen)


def apply_layer(
  experts: Experts,
  hidden: jax.Array,
  router_logits: jax.Array,
  routing: Routing,
  *,
  routes: Routes | None = None,
  constants: jax.Array | None = None,
  token_mask: jax.Array | None = None,
  residual: jax.Array | None = None,
  reroute: Partial | None = None,
  observe: Partial | None = None,
  implementation: str | None = None,
  sharding: NamedSharding | None = None,
) -> tuple[jax.Array, Any]:
  """Applies a layer's experts, with the seam's two functions for that layer.

  Args:
    experts: E stacked experts.
    hidden: [N, D] of the experts' type.
    router_logits: [N, E] float32.
    routing: the model's choice.
    routes: from the router's outputs to the experts, where there are more
      outputs than experts; the seam's functions see the experts alone.
    constants: [P, D], added by gate for outputs of the router that lead to no
      expert; None for none.
    token_mask: [N] bool, False for padding; None where there is none.
    residual: [N, D], which both functions see; None where it is not told.
    reroute: of this layer (`of_layer`), or None.
    observe: of this layer, or None.
    implementation: of the kernels, see `routed`.
    sharding: how the experts' first axis is spread, see `expert_parallel`;
      None for experts on one device.

  Returns:
    The output [N, D], and what was observed (None without `observe`).

  Raises:
    ValueError: as `routed`, of the routing that `reroute` returns too.
  """
  # Padding goes to no expert, whether a method runs or not.
  if token_mask is not None:
    routing = keep_pairs(routing, token_mask[:, None])
  constant = None
  if constants is not None:
    constant = constant_outputs(constants, routing)
  if routes is not None:
    router_logits, routing = follow_routes(
      jnp.asarray(routes.expert_of, jnp.int32),
      router_logits,
      routing,
      num_experts=experts.num_experts,
    )
  run = functools.partial(
    _run, implementation, sharding, experts, hidden, constant
  )
  if reroute is None and observe is None:
    return run(routing, has_pairs=False)[0], None
  # A method may choose in the router's place, but not for padding.
  is_token = all_tokens(token_mask, hidden.shape[0])
  layer = MoeInput(hidden, router_logits, routing, is_token, experts, residual)
  adjusted = None
  if reroute is not None:
    routing = reroute(layer)
    if isinstance(routing, Adjusted):
      adjusted, routing = routing, routing.routing
    ids = kernels.as_int32(routing.expert_ids, experts.num_experts)
    routing = routing._replace(expert_ids=ids)
    if token_mask is not None:
      routing = keep_pairs(routing, token_mask[:, None])
  # Outputs by pair cost memory: only an observer that asks gets them.
  has_pairs = getattr(_innermost(observe), "needs_pair_outputs", False)
  out, pairs = run(routing, has_pairs=has_pairs)
  if adjusted is not None:
    scale, shift = adjusted.scale[None], adjusted.shift[None]
    out = (out.astype(jnp.float32) * scale + shift).astype(out.dtype)
  if observe is None:
    return out, None
  # The observer sees the routing that was used.
  layer = layer._replace(routing=routing)
  return out, observe(layer, MoeOutput(out, pairs))


def apply_block(
  block: FeedForward,
  x: jax.Array,
  *,
  token_mask: jax.Array | None = None,
  observe: Partial | None = None,
) -> tuple[jax.Array, Any]:
  """Applies a dense model's block, with the seam's observer for that layer.

  Args:
    block: merged.
    x: [..., D] of the block's type.
    token_mask: [...] bool, False for padding; None where there is none.
    observe: of this layer, or None. It sees N tokens without a routing.

  Returns:
    The output [..., D], and what was observed (None without `observe`).
  """
  out = feed_forward.apply(block, x)
  if observe is None:
    return out, None
  hidden = x.reshape(-1, x.shape[-1])
  mask = None if token_mask is None else token_mask.reshape(-1)
  is_token = all_tokens(mask, hidden.shape[0])
  layer = MoeInput(hidden, None, None, is_token, block)
  return out, observe(layer, MoeOutput(out.reshape(hidden.shape), None))


def _run(
  implementation: str | None,
  sharding: NamedSharding | None,
  experts: Experts,
  hidden: jax.Array,
  constant: jax.Array | None,
  routing: Routing,
  *,
  has_pairs: bool,
) -> tuple[jax.Array, jax.Array | None]:
  """The output, and the outputs by pair or None."""

  def forward(
    experts: Experts, x: jax.Array, routing: Routing
  ) -> tuple[jax.Array, jax.Array | None]:
    if has_pairs:
      return routed_pairs(experts, x, routing, implementation=implementation)
    return routed(experts, x, routing, implementation=implementation), None

  if sharding is None:
    out, pairs = forward(experts, hidden, routing)
  else:
    out, pairs = expert_parallel.spread(
      forward, experts, hidden, routing, sharding
    )
  return out if constant is None else out + constant, pairs
