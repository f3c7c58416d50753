"""Gives merged blocks the scale that the routed experts' outputs have.

Averaged experts give smaller outputs than the experts: what they do not have in
common cancels, and gates need not sum to one. The ratio of standard deviations
of both outputs, on the same inputs, goes into the output matrix. Letters: L
layers with experts, N tokens, B sequences, S tokens of each, D model width.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from tanbr_jax import moe
from tanbr_jax.checks.names import check_choice
from tanbr_jax.models.base import Model, MoeInput, MoeOutput, Params
from tanbr_jax.models.fine_tunes import FineTunes
from tanbr_jax.moe import feed_forward

MODES = ("scalar", "per_dimension")


class Moments(NamedTuple):
  """Sums over tokens, of L layers.

  Attributes:
    count: [L], tokens.
    mean: [L, D], their mean.
    squares: [L, D], the sum of squared distances from it.
  """

  count: np.ndarray
  mean: np.ndarray
  squares: np.ndarray


def match_scale(
  model: Model,
  params: Params,
  merged_params: Params,
  input_ids: jax.Array | np.ndarray,
  *,
  attention_mask: jax.Array | np.ndarray | None = None,
  mode: str = "per_dimension",
  batch_size: int = 8,
  on_batch: Callable[[], object] = lambda: None,
) -> Params:
  """Scales every merged block to the spread of the routed output it replaces.

  Both outputs, without the shared expert's, are taken on the inputs that the
  layer has in the routed model, all layers in one pass. Only the spread is
  matched: a shift of the mean has no place in a block without a bias. Experts
  merged in groups get the same factors in every group, with which the layer's
  output has the spread; they are routed as the routed model chooses.

  Args:
    model: the model with experts, but not of fine-tunes.
    params: its parameters.
    merged_params: what `merge`, or a method of `compress.MERGES`, made of them.
    input_ids: [n, S] integer tokens of calibration text.
    attention_mask: [n, S], False or 0 for padding; None for none.
    mode: "per_dimension" for the ratio of the standard deviations of each of
      the D outputs, "scalar" for that of all of them together.
    batch_size: sequences that are read at once.
    on_batch: called after every batch.

  Returns:
    The merged parameters with other `w_out` and `b_out`. What the merged block
    always gives the same value for is not scaled.

  Raises:
    ValueError: if the model has no stacked experts, the merged ones have no
      routes from its routers, the tokens are not [n, S] or fewer than two, or
      the mode is unknown.
  """
  check_choice("mode", mode, MODES)
  if model.config.num_experts is None or isinstance(model, FineTunes):
    raise ValueError("model must have stacked experts, whose scale is matched")
  input_ids = np.asarray(input_ids, np.int32)
  mask = np.ones_like(input_ids) if attention_mask is None else attention_mask
  mask = np.asarray(mask).astype(bool)
  if input_ids.ndim != 2 or mask.shape != input_ids.shape or mask.sum() < 2:
    raise ValueError(
      "input_ids must be [n, S] with two tokens or more, and attention_mask "
      f"alike, got {input_ids.shape} and {mask.shape} with {mask.sum()} tokens"
    )
  # The merged blocks travel with the observer, a part for each layer.
  names = [f"layer_{layer}" for layer in model.config.moe_layers]
  layers = dict(merged_params["params"])
  blocks = [layers[name]["experts"]["stack"] for name in names]
  own = [
    (feed_forward.without_shared(block), _routes(model, layers[name]))
    for name, block in zip(names, blocks, strict=True)
  ]
  observe = Partial(
    _observe, jax.tree.map(lambda *leaves: jnp.stack(leaves), *own)
  )
  routed = merged = None
  for begin in range(0, len(input_ids), batch_size):
    rows = slice(begin, begin + batch_size)
    seen = _see(model, params, input_ids[rows], mask[rows], observe)
    routed, merged = _add(routed, seen[0]), _add(merged, seen[1])
    on_batch()
  scales = _ratio(routed, merged, mode)
  for name, block, scale in zip(names, blocks, scales, strict=True):
    experts = {**layers[name]["experts"], "stack": _scale(block, scale)}
    layers[name] = {**layers[name], "experts": experts}
  return {"params": layers}


@functools.partial(jax.jit, static_argnums=0)
def _see(
  model: Model,
  params: Params,
  input_ids: jax.Array,
  mask: jax.Array,
  observe: Partial,
) -> tuple[Moments, Moments]:
  return model.apply(params, input_ids, attention_mask=mask, observe=observe)[1]


def _routes(model: Model, merged_layer: Params) -> jax.Array | None:
  """[E], the merged expert of each of the model's; None for one block."""
  experts = merged_layer["experts"]
  if not isinstance(experts["stack"], moe.Experts):
    return None
  routes, num_experts = experts.get("routes"), model.config.num_experts
  if routes is None or len(routes) != num_experts:
    raise ValueError(
      f"merged experts must have routes of {num_experts} experts, got {routes}"
    )
  return jnp.asarray(routes.expert_of, jnp.int32)


def _observe(
  merged: tuple[moe.FeedForward | moe.Experts, jax.Array | None],
  layer: MoeInput,
  output: MoeOutput,
) -> tuple[Moments, Moments]:
  """Moments of the routed and of the merged output of a layer."""
  block, expert_of = merged
  zeros = jnp.zeros_like(output.output)
  shared = feed_forward.add_shared(zeros, layer.experts, layer.hidden)
  routed = output.output.astype(jnp.float32) - shared.astype(jnp.float32)
  if expert_of is None:
    out = feed_forward.apply(block, layer.hidden)
  else:
    _, routing = moe.follow_routes(
      expert_of,
      layer.router_logits,
      layer.routing,
      num_experts=block.num_experts,
    )
    out = moe.routed(block, layer.hidden, routing)
  out = out.astype(jnp.float32)
  return _moments(routed, layer.token_mask), _moments(out, layer.token_mask)


def _moments(x: jax.Array, token_mask: jax.Array) -> Moments:
  is_token = token_mask[:, None]
  count = jnp.sum(token_mask, dtype=jnp.float32)
  mean = jnp.sum(jnp.where(is_token, x, 0), axis=0) / jnp.maximum(count, 1)
  off = jnp.where(is_token, x - mean[None], 0)
  return Moments(count, mean, jnp.sum(off * off, axis=0))


def _add(before: Moments | None, new: Moments) -> Moments:
  """The moments of both (Chan, Golub and LeVeque, 1983), in float64."""
  new = Moments(*(np.asarray(part, np.float64) for part in new))
  if before is None:
    return new
  count = before.count + new.count
  share = (new.count / np.maximum(count, 1))[:, None]
  off = new.mean - before.mean
  return Moments(
    count,
    before.mean + share * off,
    before.squares + new.squares + off * off * share * before.count[:, None],
  )


def _ratio(routed: Moments, merged: Moments, mode: str) -> np.ndarray:
  """[L, D], sigma of the routed output in units of the merged one's."""
  wanted, have = routed.squares, merged.squares
  if mode == "scalar":
    wanted = np.broadcast_to(wanted.sum(1, keepdims=True), wanted.shape)
    have = np.broadcast_to(have.sum(1, keepdims=True), have.shape)
  is_there = have > 0
  return np.where(is_there, np.sqrt(wanted / np.where(is_there, have, 1)), 1)


def _scale(
  block: moe.FeedForward | moe.Experts, scale: np.ndarray
) -> moe.FeedForward | moe.Experts:
  """Multiplies the outputs of a block, but not those of its shared one."""

  def times(array: jax.Array) -> jax.Array:
    factor = jnp.asarray(scale, jnp.float32)
    factor = factor.reshape((1,) * (array.ndim - 1) + factor.shape)
    return (array.astype(jnp.float32) * factor).astype(array.dtype)

  b_out = None if block.b_out is None else times(block.b_out)
  return dataclasses.replace(block, w_out=times(block.w_out), b_out=b_out)
