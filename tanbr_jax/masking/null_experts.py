"""Experts without parameters that a trained model learns to choose instead.

Zeng et al., AdaMoE (arXiv 2406.13233, 2024): M null experts join the E true
ones; a token takes its K best of all, and its gates are those of the true ones
among them. A load-balance loss, in which the null experts share their load,
fixes how many true experts a token has on average: K E / (E + M).
ZEDA (arXiv 2605.18643, 2026): the same of zero-output experts, whose gates
count in the sum, trained to follow the original model's distribution, first
the new part of the routers alone and then everything.

Letters: L layers with experts, N tokens, D model width, E experts, M null
experts, K experts per token.
"""

import functools

import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from tanbr_jax import kernels
from tanbr_jax.checks.ranges import Count, checked
from tanbr_jax.masking import pairs
from tanbr_jax.models import Model
from tanbr_jax.moe import NO_EXPERT, MoeInput, MoeOutput, Routing
from tanbr_jax.moe.scores import pick

NullRouter = dict[str, jax.Array]


@checked
def init_null_router(
  key: jax.Array, model: Model, *, num_null: Count
) -> NullRouter:
  """Draws the routers' columns of M null experts, as wide as a router's own.

  Args:
    key: random key, consumed.
    model: with experts, whose router is a softmax without groups or a bias of
      the selection.
    num_null: M.

  Returns:
    {"kernel": [L, D, M] float32}.

  Raises:
    ValueError: if M is below 1, or the model has another router.
  """
  num_layers, dim = pairs.num_layers(model), model.config.model_dim
  options = getattr(model.config, "router", None)
  if options is not None and (
    options.scores not in ("softmax", "softmax_after")
    or options.groups is not None
    or options.has_correction_bias
  ):
    raise ValueError(
      "null experts need a plain softmax router, got "
      f"scores={options.scores!r}, groups={options.groups}, "
      f"has_correction_bias={options.has_correction_bias}"
    )
  draw = jax.random.normal(key, (num_layers, dim, num_null), jnp.float32)
  return {"kernel": draw * dim**-0.5}


def null_experts(
  model: Model, null_router: NullRouter, *, counts_null: bool = False
) -> Partial:
  """A reroute to the K best of E true and M null experts.

  Args:
    model: with experts.
    null_router: of `init_null_router`, trained.
    counts_null: whether the null experts' gates count in the sum that gates
      are scaled to, as zero-output experts' do (ZEDA), or only the true ones'
      (AdaMoE). Families that do not rescale gates have the true experts'
      probabilities among all E + M, or among the E.
  """
  rescales = pairs.by_layer(model, pairs.rescales_gates(model), bool)
  options = getattr(model.config, "router", None)
  scale = 1.0 if options is None else options.gate_scale
  scales = pairs.by_layer(model, scale, jnp.float32)
  run = _zero_output if counts_null else _null
  return Partial(run, (null_router, rescales, scales))


def observe_balance(
  null_router: NullRouter, layer: MoeInput, output: MoeOutput
) -> jax.Array:
  """[] float32, the load-balance loss of true and null experts, in training.

  For `observe=Partial(observe_balance, null_router)`. E + M times the sum of
  share of choices and mean probability, the null experts' both averaged over
  them; 1 if balanced.
  """
  del output
  num_selected = layer.routing.expert_ids.shape[1]
  probabilities, ids = _choose(null_router, layer, num_selected)
  num_true, num_all = layer.router_logits.shape[-1], probabilities.shape[-1]
  is_token = layer.token_mask.astype(jnp.float32)
  count = jnp.maximum(jnp.sum(is_token), 1)
  every = jnp.arange(num_all, dtype=jnp.int32)
  is_chosen = jnp.any(ids[:, :, None] == every[None, None], axis=1)
  shares = is_token @ is_chosen.astype(jnp.float32) / (count * num_selected)
  means = is_token @ probabilities / count

  def group(values: jax.Array) -> jax.Array:
    return jnp.where(every < num_true, values, jnp.mean(values[num_true:]))

  return jnp.float32(num_all) * jnp.vdot(group(shares), group(means))


def _choose(
  null_router: NullRouter, layer: MoeInput, num_selected: int
) -> tuple[jax.Array, jax.Array]:
  """Probabilities [N, E + M] and the ids [N, K] of the best."""
  own = layer.hidden.astype(jnp.float32) @ null_router["kernel"]
  logits = jnp.concatenate([layer.router_logits, own], axis=-1)
  ids = kernels.largest_ids(logits, num_selected)
  return jax.nn.softmax(logits, axis=-1), ids


def _reroute(
  tree: tuple[NullRouter, jax.Array, jax.Array],
  layer: MoeInput,
  *,
  counts_null: bool,
) -> Routing:
  null_router, rescales, gate_scale = tree
  num_selected = layer.routing.expert_ids.shape[1]
  probabilities, ids = _choose(null_router, layer, num_selected)
  num_true = layer.router_logits.shape[-1]
  is_true = ids < num_true
  chosen = pick(probabilities, ids)
  gates = jnp.where(is_true, chosen, 0)
  among_true = jnp.sum(probabilities[:, :num_true], axis=-1, keepdims=True)
  total = jnp.sum(chosen if counts_null else gates, axis=-1, keepdims=True)
  own = jnp.ones_like(total) if counts_null else among_true
  total = jnp.where(rescales, total, own)
  total = jnp.where(total == 0, jnp.ones_like(total), total)
  ids = jnp.where(is_true, ids, NO_EXPERT)
  gates = gates / total * gate_scale
  return layer.routing._replace(expert_ids=ids, gates=gates)


_null = functools.partial(_reroute, counts_null=False)
_zero_output = functools.partial(_reroute, counts_null=True)
