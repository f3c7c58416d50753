"""What `calibrate` looks at in every layer of experts, on the device.

Sums over one batch's tokens, float32. Letters: N tokens, E experts, K experts
per token, D model width, F an expert's hidden width.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from tanbr_jax import kernels, moe
from tanbr_jax.models.base import Model, Params
from tanbr_jax.moe import MoeInput, MoeOutput, feed_forward
from tanbr_jax.moe.parameters import ARRAYS
from tanbr_jax.moe.scores import pick

Arrays = dict[str, jax.Array]


def observer(
  model: Model, params: Params, needs: frozenset[str], selection: str
) -> Partial:
  """The observer of what is needed.

  Args:
    model: with experts.
    params: its parameters.
    needs: keys of `statistics.NEEDS`, without "gradients".
    selection: one of `statistics.SELECTIONS`.
  """
  biases = None
  if "leave_one_out" in needs:
    biases = correction_biases(model, params)
  return Partial(_function(model, needs, selection), biases)


def correction_biases(model: Model, params: Params) -> dict[str, jax.Array]:
  """What `model.choose` reads of the routers besides logits, stacked [L, E]."""
  routers = [
    params["params"][f"layer_{layer}"]["experts"]["router"]
    for layer in model.config.moe_layers
  ]
  name = "correction_bias"
  if name not in routers[0]:
    return {}
  return {name: jnp.stack([router[name] for router in routers])}


# One function for each set, or programs would compile again.
@functools.cache
def _function(
  model: Model, needs: frozenset[str], selection: str
) -> Callable[..., Arrays]:
  def observe(
    router: Any, layer: MoeInput, output: MoeOutput
  ) -> dict[str, Any]:
    seen = _routing(layer)
    if "peu" in needs:
      seen |= _top_logits(layer, selection)
    if "outputs" in needs:
      seen |= _outputs(layer, output)
    if needs & {"all_outputs", "inputs", "activations"}:
      seen |= _by_expert(layer, needs)
    if "profiles" in needs:
      seen |= _profiles(layer)
    if "leave_one_out" in needs:
      seen |= {"leave_one_out": _leave_one_out(model, router, layer)}
    if "samples" in needs:
      seen |= {
        "sample_inputs": layer.hidden.astype(jnp.float32),
        "sample_logits": layer.router_logits,
      }
    return seen

  if "outputs" in needs:
    observe = moe.needs_pair_outputs(observe)
  return observe


def _is_pair(layer: MoeInput) -> jax.Array:
  """[N, K, E] bool, padding left out: its pairs have no expert."""
  experts = jnp.arange(layer.router_logits.shape[-1], dtype=jnp.int32)
  return layer.routing.expert_ids[:, :, None] == experts[None, None]


def _by_pair(is_pair: jax.Array, values: jax.Array) -> jax.Array:
  """[E], the sums of values [N, K] by their expert."""
  return jnp.sum(jnp.where(is_pair, values[:, :, None], 0), axis=(0, 1))


def _normalised_gates(layer: MoeInput) -> jax.Array:
  return moe.normalise_gates(layer.routing).gates.astype(jnp.float32)


def _routing(layer: MoeInput) -> Arrays:
  is_pair, routing = _is_pair(layer), layer.routing
  is_token = layer.token_mask[:, None]
  counts = jnp.any(is_pair, axis=1)
  sums = lambda rows: jnp.sum(jnp.where(is_token, rows, 0), axis=0)  # noqa: E731
  return {
    "num_pairs": jnp.sum(is_pair, axis=(0, 1), dtype=jnp.int32),
    "probability": sums(routing.probabilities),
    "selected_probability": jnp.sum(
      jnp.where(counts, routing.probabilities, 0), axis=0
    ),
    "gates": _by_pair(is_pair, routing.gates.astype(jnp.float32)),
    "normalised_gates": _by_pair(is_pair, _normalised_gates(layer)),
    "logits": sums(layer.router_logits),
  }


def _top_logits(layer: MoeInput, selection: str) -> Arrays:
  """A(x) of every token and its logits, -inf where there is no expert."""
  logits = layer.router_logits
  ids = layer.routing.expert_ids
  is_open = layer.token_mask[:, None] & (ids >= 0) & (ids < logits.shape[-1])
  if selection == "logits":
    ids = kernels.largest_ids(logits, ids.shape[1])
    is_open = layer.token_mask[:, None]
  ids = jnp.where(is_open, ids, 0)
  return {
    "top_ids": ids,
    "top_logits": jnp.where(is_open, pick(logits, ids), -jnp.inf),
  }


def _outputs(layer: MoeInput, output: MoeOutput) -> Arrays:
  pairs = output.pair_outputs.astype(jnp.float32)
  gates = layer.routing.gates.astype(jnp.float32)
  is_pair = _is_pair(layer)
  norms = jnp.sqrt(jnp.sum(pairs * pairs, axis=-1))
  largest = jnp.max(jnp.abs(pairs), axis=-1)
  is_pair_float = is_pair.astype(jnp.float32)
  sums = functools.partial(
    jnp.einsum, "nke,nk,nkd->ed", is_pair_float, precision="highest"
  )
  gated = gates * norms
  return {
    "output_norms": _by_pair(is_pair, norms),
    "gated_norms": _by_pair(is_pair, gated),
    "normalised_gated_norms": _by_pair(
      is_pair, _normalised_gates(layer) * norms
    ),
    "easy_ep": _by_pair(is_pair, gated * _turn(layer, pairs)[:, None]),
    "largest_output": jnp.max(
      jnp.where(is_pair, largest[:, :, None], 0), axis=(0, 1)
    ),
    "outputs": sums(jnp.ones_like(gates), pairs),
    "gated_outputs": sums(gates, pairs),
  }


def _turn(layer: MoeInput, pairs: jax.Array) -> jax.Array:
  """[N], 1 - cos(h, h + m), no less than 0."""
  if layer.residual is None:
    return jnp.full(pairs.shape[:1], jnp.nan, jnp.float32)
  before = layer.residual.astype(jnp.float32)
  gates = layer.routing.gates.astype(jnp.float32)
  after = before + jnp.sum(gates[:, :, None] * pairs, axis=1)
  norm = lambda x: jnp.sqrt(jnp.sum(x * x, axis=-1))  # noqa: E731
  product = jnp.sum(before * after, axis=-1)
  scale = jnp.maximum(norm(before) * norm(after), 1e-30)
  return jnp.maximum(1 - product / scale, 0)


def _by_expert(layer: MoeInput, needs: frozenset[str]) -> Arrays:
  """Sums that need every token or products of all units, an expert at a time.

  All N tokens pass each expert: E / K times the work of the layer itself.
  """
  is_own = jnp.any(_is_pair(layer), axis=1).astype(jnp.float32)
  is_token = layer.token_mask.astype(jnp.float32)
  experts, x = feed_forward.without_shared(layer.experts), layer.hidden
  wide = x.astype(jnp.float32)
  product = functools.partial(jnp.einsum, precision="highest")

  def one(parts: tuple[Any, jax.Array]) -> Arrays:
    block, own = parts
    seen = {}
    if "inputs" in needs:
      seen["input_moments"] = product("n,nd,nc->dc", own, wide, wide)
    if needs & {"activations", "all_outputs"}:
      units = feed_forward.hidden_units(block, x).astype(jnp.float32)
    if "activations" in needs:
      seen["hidden"] = own @ units
      seen["hidden_moments"] = product("n,nf,ng->fg", own, units, units)
    if "all_outputs" in needs:
      # The output is linear in the units: their sum is multiplied once.
      out = (is_token @ units) @ block.w_out.astype(jnp.float32)
      if block.b_out is not None:
        out += jnp.sum(is_token) * block.b_out.astype(jnp.float32)
      seen["all_outputs"] = out
    return seen

  arrays = {
    name: getattr(experts, name)
    for name in ARRAYS
    if getattr(experts, name) is not None
  }

  def of_expert(parts: tuple[Arrays, jax.Array]) -> Arrays:
    own_arrays, own = parts
    block = moe.FeedForward(**own_arrays, activation=experts.activation)
    return one((block, own))

  return jax.lax.map(of_expert, (arrays, is_own.T))


def _profiles(layer: MoeInput) -> Arrays:
  is_token = layer.token_mask[:, None]
  product = functools.partial(jnp.einsum, "ni,nj->ij", precision="highest")
  logits = jnp.where(is_token, layer.router_logits, 0)
  shares = jnp.where(is_token, layer.routing.probabilities, 0)
  return {
    "logit_products": product(logits, logits),
    "probability_products": product(shares, shares),
  }


def _leave_one_out(model: Model, router: Any, layer: MoeInput) -> jax.Array:
  """[E], the squared change of the layer's output without each expert."""
  own = feed_forward.without_shared(layer.experts)
  full = moe.routed(own, layer.hidden, layer.routing)
  experts = jnp.arange(layer.router_logits.shape[-1], dtype=jnp.int32)

  def change(expert: jax.Array) -> jax.Array:
    logits = jnp.where((experts == expert)[None], -jnp.inf, layer.router_logits)
    routing = model.choose(router, logits)
    routing = moe.keep_pairs(routing, layer.token_mask[:, None])
    off = moe.routed(own, layer.hidden, routing) - full
    return jnp.sum(jnp.square(off.astype(jnp.float32)))

  return jax.lax.map(change, experts)
