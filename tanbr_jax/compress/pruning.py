"""Leaves experts out of a model, by a reroute first and for good then.

Letters: L layers, E experts, K experts per token, M experts kept, N tokens, D
model width.
"""

import dataclasses
import functools
import itertools
import json
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from tanbr_jax import moe
from tanbr_jax.compress import ranking
from tanbr_jax.compress.observers import correction_biases
from tanbr_jax.compress.ranking import Selection
from tanbr_jax.compress.statistics import CalibrationStatistics
from tanbr_jax.models.base import Model, MoeInput, Params
from tanbr_jax.models.decoder import Decoder
from tanbr_jax.models.fine_tunes import FineTunes
from tanbr_jax.models.huggingface import folder as folders
from tanbr_jax.models.huggingface.config_keys import ConfigKeys
from tanbr_jax.models.huggingface.families import REGISTRY
from tanbr_jax.moe import feed_forward

# The number of experts, as families call it in their config.json.
_COUNTS = (
  "num_experts",
  "num_local_experts",
  "n_routed_experts",
  "moe_num_experts",
)


def reroute(model: Model, params: Params, keep: Any) -> Partial:
  """Routes as the pruned model would, with all experts still there.

  The routers' logits of the others are -inf: a token goes to the best K of the
  experts that are kept. Layers may keep different numbers.

  Args:
    model: a model with experts.
    params: its parameters.
    keep: [L, M], or a sequence of ids for each layer.

  Returns:
    For `model.apply(..., reroute=)`.

  Raises:
    ValueError: if a layer keeps fewer than K experts, `keep` is wrong, or the
      model is one of merged groups (`compress.with_copies` undoes them) or of
      constants.
  """
  selection = _check(model, params, keep)
  mask = ranking.to_mask(selection, model.config.num_experts)
  tree = jnp.asarray(mask), correction_biases(model, params)
  return Partial(_rerouting(model), tree)


# One function a model: see `moe.seam`.
@functools.cache
def _rerouting(model: Model) -> Callable[..., moe.Routing]:
  def choose(tree: Any, layer: MoeInput) -> moe.Routing:
    mask, router = tree
    logits = jnp.where(mask[None], layer.router_logits, -jnp.inf)
    return model.choose(router, logits)

  return choose


def prune(model: Model, params: Params, keep: Any) -> tuple[Model, Params]:
  """Cuts all but the kept experts out of a model.

  Experts, rows of the routers and their biases are sliced; K stays, so that a
  token's operations do not change. A model of `from_pretrained` is written by
  `save_pretrained` in its family's own format.

  Args:
    model: a model with experts, but not of fine-tunes.
    params: its parameters.
    keep: [L, M], or a sequence of M ids for each layer; in ascending order
      they become experts 0 to M - 1.

  Returns:
    The model of M experts and its parameters; what is not cut is shared.

  Raises:
    ValueError: if layers keep different numbers, for which `reroute` is there;
      a layer keeps fewer than K experts; the router chooses among groups of
      experts and these keep different numbers; `keep` is wrong; or the model
      is one of merged groups or of constants, as for `reroute`.
  """
  selection = _check(model, params, keep)
  sizes = {len(ids) for ids in selection}
  if len(sizes) > 1:
    raise ValueError(
      "a model has one number of experts for all layers, got "
      f"{min(sizes)} to {max(sizes)}: reroute(model, params, keep) masks them"
    )
  config = model.config
  _check_groups(config, selection)
  layers = dict(params["params"])
  for layer, ids in zip(config.moe_layers, selection, strict=True):
    name = f"layer_{layer}"
    experts = layers[name]["experts"]
    rows = jnp.asarray(ids, jnp.int32)
    # Kernels [D, E] and biases [E] alike.
    router = {n: jnp.take(x, rows, -1) for n, x in experts["router"].items()}
    layers[name] = {
      **layers[name],
      "experts": {
        **experts,
        "router": router,
        "stack": moe.take_experts(experts["stack"], ids),
      },
    }
  config = dataclasses.replace(config, num_experts=sizes.pop())
  pruned = dataclasses.replace(model, config=config)
  if getattr(model, "origin", None) is not None:
    pruned = dataclasses.replace(pruned, origin=_origin(pruned))
  return pruned, {"params": layers}


def _check(model: Model, params: Params, keep: Any) -> Selection:
  config = model.config
  if config.num_experts is None or isinstance(model, FineTunes):
    raise ValueError("model must have stacked experts to be pruned")
  for layer in config.moe_layers:
    experts = params["params"][f"layer_{layer}"]["experts"]
    if "constants" in experts:
      raise ValueError(
        "a model with constants in dropped experts' place is pruned already"
      )
    # A choice among the G experts is not the choice among the router's outputs,
    # with all of them kept neither.
    if "routes" in experts:
      raise ValueError(
        "several outputs of a merged model's router lead to one expert: prune "
        "the model of with_copies"
      )
  return ranking.check_selection(
    keep,
    num_layers=len(config.moe_layers),
    num_experts=config.num_experts,
    num_selected=config.num_selected,
  )


def _check_groups(config: Any, selection: Selection) -> None:
  groups = getattr(getattr(config, "router", None), "groups", None)
  if groups is None:
    return
  size = config.num_experts // groups.num_groups
  for place, ids in enumerate(selection):
    counts = np.bincount(ids // size, minlength=groups.num_groups)
    if len(set(counts.tolist())) > 1:
      raise ValueError(
        "the router chooses among groups of experts, which must keep equally "
        f"many, got {counts.tolist()} in layer {place}"
      )
    if groups.score == "top2_sum" and counts[0] < 2:
      raise ValueError(
        "the router scores groups by their best two experts, got groups of "
        f"{counts[0]} in layer {place}"
      )
    if counts[0] * groups.num_selected < config.num_selected:
      raise ValueError(
        f"num_selected={config.num_selected} experts must be in "
        f"{groups.num_selected} groups, got groups of {counts[0]} in layer "
        f"{place}"
      )


def _origin(pruned: Decoder) -> folders.Origin:
  """The origin with the smaller number and without the tensors cut out."""
  origin, config = pruned.origin, pruned.config
  family, raw = REGISTRY[origin.family], json.loads(origin.config)
  counts = {name: config.num_experts for name in _COUNTS if name in raw}
  raw = raw | counts
  keys = ConfigKeys(raw, folders.CONFIG)
  if not counts or family.config(keys).num_experts != config.num_experts:
    raise ValueError(
      f"{origin.family} has no key for {config.num_experts} experts in "
      "config.json"
    )
  left = {piece.key for piece in family.pieces(config, origin.layout)}
  return dataclasses.replace(
    origin,
    config=json.dumps(raw, indent=2) + "\n",
    tensors=tuple(one for one in origin.tensors if one.key in left),
  )


def enumerate_keep(
  model: Model,
  params: Params,
  statistics: CalibrationStatistics,
  num_kept: int,
  *,
  max_sets: int = 5000,
) -> Selection:
  """The set of every layer that changes its output least, of all sets.

  Lu et al., Not All Experts are Equal (arXiv 2402.14800): |F(X) - F_S(X)| over
  kept samples X, for each of the E over M sets S of experts that are kept.

  Args:
    model: a model with experts.
    params: its parameters.
    statistics: of that model, with "samples".
    num_kept: M, in [K, E].
    max_sets: most sets that are tried; it is for small E.

  Raises:
    ValueError: if there are more sets or no samples, or M is out of range.
  """
  statistics.need("samples", method="enumerate_keep")
  statistics.check_model(model, params)
  num_experts = statistics.num_experts
  low = statistics.num_selected
  if not low <= num_kept <= num_experts:
    raise ValueError(
      f"num_kept must be in [num_selected, E] = [{low}, {num_experts}], got "
      f"num_kept={num_kept}"
    )
  num_sets = math.comb(num_experts, num_kept)
  if num_sets > max_sets:
    raise ValueError(
      f"{num_experts} over {num_kept} are {num_sets} sets, more than "
      f"max_sets={max_sets}"
    )
  sets = list(itertools.combinations(range(num_experts), num_kept))
  masks = np.zeros((num_sets, num_experts), bool)
  np.put_along_axis(masks, np.array(sets), True, axis=1)
  biases = correction_biases(model, params)
  keep = []
  for place, layer in enumerate(model.config.moe_layers):
    stack = params["params"][f"layer_{layer}"]["experts"]["stack"]
    errors = _set_errors(
      model,
      feed_forward.without_shared(stack),
      jax.tree.map(lambda x, place=place: x[place], biases),
      jnp.asarray(statistics.sample_inputs[place], stack.w_in.dtype),
      jnp.asarray(statistics.sample_logits[place]),
      jnp.asarray(masks),
    )
    keep.append(np.array(sets[int(np.argmin(errors))]))
  return keep


@functools.partial(jax.jit, static_argnums=0)
def _set_errors(
  model: Model,
  experts: moe.Experts,
  router: Params,
  x: jax.Array,
  logits: jax.Array,
  masks: jax.Array,
) -> jax.Array:
  """[C], the squared error of each of C masks [C, E]."""
  full = moe.routed(experts, x, model.choose(router, logits))

  def error(mask: jax.Array) -> jax.Array:
    open_logits = jnp.where(mask[None], logits, -jnp.inf)
    out = moe.routed(experts, x, model.choose(router, open_logits))
    return jnp.sum(jnp.square((out - full).astype(jnp.float32)))

  return jax.lax.map(error, masks)
