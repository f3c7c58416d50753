"""Fewer experts per token without training: reroutes by rank and by gate.

All keep some of the K pairs that the model's router chose. Gates follow the
model's own rule: where a family scales a token's gates to a fixed sum, those of
the pairs that are left are scaled to it again; `keeps_gates` leaves them.
What varies is in the trees, so that a sweep compiles once.

Letters: L layers with experts, N tokens, E experts, K experts per token.
"""

import functools
from collections.abc import Callable
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from tanbr_jax.checks.ranges import Range, Share, checked
from tanbr_jax.masking import pairs
from tanbr_jax.models import Model, Params
from tanbr_jax.moe import MoeInput, MoeOutput, Routing
from tanbr_jax.moe.routing import is_active


class _Rule(NamedTuple):
  """One rule in every layer; leaves of [L]."""

  value: jax.Array
  rescales: jax.Array


def smaller_k(
  model: Model, num_selected: int, *, keeps_gates: bool = False
) -> Partial:
  """The first k of each token's K experts.

  With `keeps_gates` they keep the normalisation over the old K (Select k,
  normalise over more, arXiv 2609.04575, 2026).

  Args:
    model: with experts.
    num_selected: k, in [1, K].
    keeps_gates: see above; families that do not rescale gates do in any case.

  Raises:
    ValueError: if k is out of range, or the model has no experts.
  """
  pairs.num_layers(model)
  pairs.check_num_selected(model, num_selected)
  rule = _rule(model, num_selected, jnp.int32, keeps_gates)
  return Partial(_first, rule)


def top_p(
  model: Model,
  threshold: Annotated[float, Range(0, 1, "[]")],
  *,
  keeps_gates: bool = False,
) -> Partial:
  """The fewest experts whose probabilities sum to more than the threshold.

  Huang et al., Harder Tasks Need More Experts (arXiv 2403.07652, 2024), of
  the softmax over all E. At most the K that the router chose, which are all
  that a trained model of K experts has learnt to use; at least the first.

  Args:
    model: with experts.
    threshold: p, in [0, 1].
    keeps_gates: whether gates are not scaled to their old sum.

  Raises:
    ValueError: if p is out of range, or the model has no experts.
  """
  Range(0, 1, "[]").check("threshold", threshold)
  rule = _rule(model, threshold, jnp.float32, keeps_gates)
  return Partial(_top_p, rule)


def xmoe(
  model: Model,
  threshold: Annotated[float, Range(0, 1, "[]")],
  *,
  keeps_gates: bool = False,
) -> Partial:
  """The fewest experts that hold at least a share of the K gates' sum.

  Yang et al., XMoE (arXiv 2403.18926, 2024), who train small experts with such
  a threshold on the router's distribution; always one expert at least. The
  share is that among the K chosen ones, where `top_p` takes all E [R].

  Args:
    model: with experts.
    threshold: in [0, 1].
    keeps_gates: whether gates are not scaled to their old sum.

  Raises:
    ValueError: if the threshold is out of range, or the model has no experts.
  """
  Range(0, 1, "[]").check("threshold", threshold)
  rule = _rule(model, threshold, jnp.float32, keeps_gates)
  return Partial(_xmoe, rule)


def naee_skip(
  model: Model, ratios: jax.Array, *, keeps_gates: bool = False
) -> Partial:
  """Drops the experts whose gate is small beside the token's first.

  Lu et al., Not All Experts are Equal (ACL 2024), section 3.3: with K = 2 the
  second expert goes if w2 < beta_l w1, where beta_l is the layer's median of
  w2 / w1 on calibration text. With more experts, each rank has a ratio of its
  own [R].

  Args:
    model: with experts.
    ratios: [L, K - 1] of `gate_ratios`, at least 0.
    keeps_gates: whether gates are not scaled to their old sum.

  Raises:
    ValueError: if the ratios have another shape, or K is 1.
  """
  num_layers, most = pairs.num_layers(model), model.config.num_selected
  if most == 1:
    raise ValueError("naee_skip needs two experts per token, got K=1")
  if ratios.shape != (num_layers, most - 1):
    raise ValueError(
      f"ratios must be [L, K - 1] = {(num_layers, most - 1)}, got "
      f"{ratios.shape}"
    )
  rescales = _rule(model, 0.0, jnp.float32, keeps_gates).rescales
  return Partial(_naee, _Rule(ratios.astype(jnp.float32), rescales))


@checked
def gate_ratios(
  model: Model, params: Params, input_ids: jax.Array, *, quantile: Share = 0.5
) -> jax.Array:
  """Calibrates `naee_skip`: quantiles of each rank's gate over the first's.

  Args:
    model: with experts.
    params: its parameters.
    input_ids: [B, S] calibration tokens without padding.
    quantile: the share of the tokens that lose the expert; .5 is the median.

  Returns:
    [L, K - 1] float32.
  """
  _, gates = _see_gates(model)(params, input_ids)
  first = jnp.maximum(gates[..., :1], jnp.finfo(jnp.float32).tiny)
  ratios = gates[..., 1:].astype(jnp.float32) / first
  return jnp.quantile(ratios, jnp.float32(quantile), axis=1)


@functools.cache
def _see_gates(model: Model) -> Callable[..., Any]:
  return jax.jit(
    lambda params, ids: model.apply(params, ids, observe=Partial(_gates))
  )


def _gates(layer: MoeInput, output: MoeOutput) -> jax.Array:
  del output
  return layer.routing.gates


def _rule(model: Model, value: Any, dtype: Any, keeps_gates: bool) -> _Rule:
  rescales = pairs.rescales_gates(model) and not keeps_gates
  return _Rule(
    pairs.by_layer(model, value, dtype), pairs.by_layer(model, rescales, bool)
  )


def first_pairs(routing: Routing, count: jax.Array) -> jax.Array:
  """Returns [N, K] bool: the pairs of the first `count` [] ranks."""
  rank = jnp.arange(routing.expert_ids.shape[1], dtype=jnp.int32)
  is_first = (rank < count)[None]
  return jnp.broadcast_to(is_first, routing.expert_ids.shape)


def _first(rule: _Rule, layer: MoeInput) -> Routing:
  is_kept = first_pairs(layer.routing, rule.value)
  return pairs.keep(layer.routing, is_kept, rule.rescales)


def _top_p(rule: _Rule, layer: MoeInput) -> Routing:
  routing = layer.routing
  shares = pairs.of_pairs(routing.probabilities, routing)
  shares = jnp.where(is_active(routing), shares, 0)
  before = jnp.cumsum(shares, axis=-1) - shares
  # The prefix grows until its sum is above p: an expert is needed as long as
  # those before it do not exceed p.
  is_kept = before <= rule.value
  is_kept |= first_pairs(routing, jnp.int32(1))
  return pairs.keep(routing, is_kept, rule.rescales)


def _xmoe(rule: _Rule, layer: MoeInput) -> Routing:
  routing = layer.routing
  gates = routing.gates.astype(jnp.float32)
  total = jnp.sum(gates, axis=-1, keepdims=True)
  shares = gates / jnp.where(total == 0, jnp.ones_like(total), total)
  before = jnp.cumsum(shares, axis=-1) - shares
  is_kept = before < rule.value
  is_kept |= first_pairs(routing, jnp.int32(1))
  return pairs.keep(routing, is_kept, rule.rescales)


def _naee(rule: _Rule, layer: MoeInput) -> Routing:
  routing = layer.routing
  gates = routing.gates.astype(jnp.float32)
  is_small = gates[:, 1:] < rule.value[None] * gates[:, :1]
  is_kept = jnp.pad(~is_small, ((0, 0), (1, 0)), constant_values=True)
  return pairs.keep(routing, is_kept, rule.rescales)
