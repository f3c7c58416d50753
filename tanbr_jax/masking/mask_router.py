"""BEAM: learned binary masks that let a token use fewer of its K experts.

Binary Expert Activation Masking (arXiv 2605.14438, 2026). Beside each layer's
router stands a linear map W [D, E], the mask router. A chosen expert e of a
token x is kept where m^_e = sigmoid(x W)_e >= 1/2; its gate is multiplied with
that mask m_e and never rescaled. In training the threshold's derivative is
taken as one (straight through), so that

  dL/dW_e = sum_n x_n m^ (1 - m^) g (dL/dy_n . E_e(x_n)) + beta / (N K L) ...

over the tokens that chose e, masked or not. At W = 0 every mask is on and the
model is the original one to the bit. The paper takes the softmax over the K
chosen logits as gates; here the model's own gates are kept, which differ from
that in families that do not rescale them (OLMoE, Qwen1.5-MoE).

All experts of a token may be masked, with K = 1 the only one: the token then
passes the shared block alone, if there is one, and the residual stream.

Letters: L layers with experts, N tokens, D model width, E experts, K experts
per token.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.tree_util import Partial

from tanbr_jax import moe
from tanbr_jax.checks.names import check_choice
from tanbr_jax.checks.ranges import Positive, checked
from tanbr_jax.masking.pairs import of_pairs
from tanbr_jax.models import Model
from tanbr_jax.moe import MoeInput, Routing

MaskRouter = dict[str, jax.Array]
# What stands for the masks in training: the threshold with a derivative of
# one, or the values before it (two of the paper's ablations).
FORMS = ("hard", "soft")


def init_mask_router(model: Model) -> MaskRouter:
  """Returns mask routers that mask nothing: {"kernel": zeros [L, D, E]}.

  Raises:
    ValueError: if the model has no experts.
  """
  config = model.config
  if config.num_experts is None:
    raise ValueError("masks need experts, got num_experts=None")
  shape = (len(config.moe_layers), config.model_dim, config.num_experts)
  return {"kernel": jnp.zeros(shape, jnp.float32)}


def check_mask_router(model: Model, mask_router: MaskRouter) -> None:
  """Refuses the mask router of another model.

  Raises:
    ValueError: if its shape is not the model's [L, D, E], or the model has no
      experts.
  """
  wanted = jax.eval_shape(lambda: init_mask_router(model))["kernel"].shape
  found = jnp.shape(mask_router["kernel"])
  if found != wanted:
    raise ValueError(
      f"mask router must be [L, D, E] = {wanted} for this model, got {found}"
    )


def beam(mask_router: MaskRouter, *, is_strict: bool = False) -> Partial:
  """A reroute that skips the pairs whose mask is off.

  Args:
    mask_router: of `init_mask_router`, trained; its shape is checked when a
      model runs with it.
    is_strict: whether a mask is on at m^ > 1/2 only (an ablation: zero masks
      then mask everything), not at m^ >= 1/2.
  """
  return Partial(_skip_above if is_strict else _skip, mask_router)


@checked
def beam_in_training(
  mask_router: MaskRouter,
  *,
  form: str = "hard",
  temperature: Positive = 1.0,
  is_strict: bool = False,
) -> Partial:
  """A reroute that computes masked pairs too and scales their gates to zero.

  The output is that of `beam`; the derivative in the mask router is the
  straight-through one, which needs the outputs of masked experts.

  Args:
    mask_router: of `init_mask_router`.
    form: of `FORMS`; "soft" multiplies with m^ itself.
    temperature: m^ is the sigmoid of the mask's logits divided by it; small
      ones make soft masks hard.
    is_strict: as for `beam`.

  Raises:
    ValueError: if the form is unknown or the temperature not positive.
  """
  check_choice("form", form, FORMS)
  num_layers = mask_router["kernel"].shape[0]
  inverse = jnp.full(num_layers, 1 / jnp.float32(temperature))
  scale = {"soft": _scale_soft, "hard": _scale}[form]
  if is_strict and form == "hard":
    scale = _scale_above
  return Partial(scale, (mask_router, inverse))


def mask_logits(mask_router: MaskRouter, layer: MoeInput) -> jax.Array:
  """Returns [N, K] float32, the masks' logits at each pair's expert.

  Args:
    mask_router: of one layer, {"kernel": [D, E]}.
    layer: its routing names the pairs; those that are skipped have no meaning.

  Raises:
    ValueError: if the mask router is that of another model.
  """
  kernel = mask_router["kernel"]
  wanted = (layer.hidden.shape[1], layer.routing.probabilities.shape[1])
  if kernel.shape != wanted:
    raise ValueError(
      f"mask router must be [D, E] = {wanted} in this layer, got {kernel.shape}"
    )
  logits = layer.hidden.astype(jnp.float32) @ kernel
  return of_pairs(logits, layer.routing)


def _is_on(logits: jax.Array, is_strict: bool) -> jax.Array:
  # m^ >= 1/2 without the sigmoid, whose rounding would keep tiny negatives.
  return logits > 0 if is_strict else logits >= 0


def _skip_pairs(
  mask_router: MaskRouter, layer: MoeInput, *, is_strict: bool
) -> Routing:
  is_on = _is_on(mask_logits(mask_router, layer), is_strict)
  return moe.keep_pairs(layer.routing, is_on)


def _scale_gates(
  tree: tuple[MaskRouter, jax.Array],
  layer: MoeInput,
  *,
  form: str,
  is_strict: bool,
) -> Routing:
  mask_router, inverse_temperature = tree
  logits = mask_logits(mask_router, layer)
  value = jax.nn.sigmoid(logits * inverse_temperature)
  if form == "hard":
    # The second summand is exactly zero and has the derivative of m^.
    is_on = _is_on(logits, is_strict).astype(jnp.float32)
    value = is_on + (value - lax.stop_gradient(value))
  gates = layer.routing.gates
  return layer.routing._replace(gates=gates * value.astype(gates.dtype))


def _bind(function: Any, **fixed: Any) -> Any:
  """One object a kind, so that nothing compiles twice."""
  return functools.partial(function, **fixed)


_skip = _bind(_skip_pairs, is_strict=False)
_skip_above = _bind(_skip_pairs, is_strict=True)
_scale = _bind(_scale_gates, form="hard", is_strict=False)
_scale_above = _bind(_scale_gates, form="hard", is_strict=True)
_scale_soft = _bind(_scale_gates, form="soft", is_strict=False)
