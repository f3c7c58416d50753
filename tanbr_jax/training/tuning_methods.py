"""What `sparse_tuning` trains: every method as functions of its config.

Letters: L layers, E experts, K experts per token.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from tanbr_jax import masking, models, moe
from tanbr_jax.moe import MoeInput, MoeOutput
from tanbr_jax.training.tuning_config import PENALTIES, TuningConfig


class Figures(NamedTuple):
  """What a method's observer tells of a layer, each [] float32."""

  penalty: jax.Array
  load_balance: jax.Array
  num_active: jax.Array


class Method(NamedTuple):
  """A method as functions of (config, model, ...)."""

  init: Callable[..., Any]  # (config, model, params, key) -> added
  training: Callable[..., Any]  # (config, model, added, temperature) -> reroute
  inference: Callable[..., Any]  # (config, model, added) -> reroute
  observe: Callable[..., Any]  # (config, added) -> observer of `Figures`


def _see_own(tree: None, layer: MoeInput, output: MoeOutput) -> Figures:
  """Without a penalty, of the model's own routers or of fewer of theirs."""
  del tree, output
  active = moe.is_active(layer.routing) & layer.token_mask[:, None]
  num_tokens = jnp.sum(layer.token_mask, dtype=jnp.float32)
  num_active = jnp.sum(active, dtype=jnp.float32) / jnp.maximum(num_tokens, 1)
  balance = moe.load_balance_loss(layer.routing, layer.token_mask)
  return Figures(jnp.float32(0), balance, num_active)


def _see_masks(
  tree: masking.MaskRouter,
  layer: MoeInput,
  output: MoeOutput,
  *,
  penalty: str,
) -> Figures:
  found = masking.observe_masks(tree, layer, output)
  chosen = found.mean if penalty == "l1" else found.mean_square
  return Figures(chosen, found.load_balance, found.num_active)


def _see_null(tree: Any, layer: MoeInput, output: MoeOutput) -> Figures:
  penalty = masking.observe_balance(tree, layer, output)
  own = _see_own(None, layer, output)
  # The penalty is the load balance of all experts already.
  return own._replace(penalty=penalty, load_balance=jnp.float32(0))


def _see_any(tree: Any, layer: MoeInput, output: MoeOutput) -> Figures:
  own = _see_own(None, layer, output)
  return own._replace(penalty=masking.observe_sparsity(tree, layer, output))


_SEE_MASKS = {
  penalty: functools.partial(_see_masks, penalty=penalty)
  for penalty in PENALTIES
}


def _fewer(config: TuningConfig, model: models.Model, *unused: Any) -> Any:
  count = config.num_selected or model.config.num_selected
  return masking.smaller_k(model, count)


def _nothing(*unused: Any) -> dict[str, jax.Array]:
  return {}


def _null(
  config: TuningConfig, model: models.Model, added: Any, *_: Any
) -> Any:
  return masking.null_experts(model, added, counts_null=config.counts_null)


def _any(config: TuningConfig, model: models.Model, added: Any, *_: Any) -> Any:
  return masking.top_any(model, added, num_slots=config.num_slots)


METHODS = {
  "none": Method(
    init=_nothing,
    training=lambda *_: None,
    inference=lambda *_: None,
    observe=lambda *_: Partial(_see_own, None),
  ),
  "smaller_k": Method(
    init=_nothing,
    training=_fewer,
    inference=_fewer,
    observe=lambda *_: Partial(_see_own, None),
  ),
  "beam": Method(
    init=lambda config, model, params, key: masking.init_mask_router(model),
    training=lambda config, model, added, temperature: masking.beam_in_training(
      added,
      form=config.form,
      temperature=temperature,
      is_strict=config.is_strict,
    ),
    inference=lambda config, model, added: masking.beam(
      added, is_strict=config.is_strict
    ),
    observe=lambda config, added: Partial(_SEE_MASKS[config.penalty], added),
  ),
  "null_experts": Method(
    init=lambda config, model, params, key: masking.init_null_router(
      key, model, num_null=config.num_null
    ),
    training=_null,
    inference=_null,
    observe=lambda config, added: Partial(_see_null, added),
  ),
  "top_any": Method(
    init=lambda config, model, params, key: masking.init_top_any(model, params),
    training=_any,
    inference=_any,
    observe=lambda config, added: Partial(_see_any, added),
  ),
}
