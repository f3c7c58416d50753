"""Puts the neurons of a layer's experts in one order before they are averaged.

The order of an expert's hidden neurons is arbitrary: experts that compute the
same in another order average to something else. Each expert's neurons are
matched to those of a reference by linear assignment, as weight matching does
for whole networks (Ainsworth et al., Git Re-Basin, 2023) and M-SMoE for experts
(Li et al., 2024). Letters: E experts, L layers with experts, D model width, F
an expert's hidden width.
"""

import dataclasses
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from scipy import optimize

from tanbr_jax import moe
from tanbr_jax.models.base import Model, Params
from tanbr_jax.models.fine_tunes import FineTunes
from tanbr_jax.moe.parameters import is_integer

# The axis of the neurons in one expert's arrays.
NEURON_AXES = {"w_in": 1, "w_gate": 1, "w_out": 0, "b_in": 0, "b_gate": 0}


def align_experts(
  model: Model,
  params: Params,
  *,
  reference: int | Sequence[int] = 0,
  on_layer: Callable[[], object] = lambda: None,
) -> Params:
  """Reorders each expert's neurons to be like those of a reference expert.

  No expert computes anything else afterwards. Two neurons are alike as far as
  the inner products of their rows of `w_in`, `w_gate` and `w_out` (with biases)
  say, each matrix taken with norm 1. An assignment takes time of order F^3 and
  8 F^2 bytes, on the host.

  Args:
    model: a model with experts, but not of fine-tunes, whose order is common.
    params: its parameters.
    reference: an expert in [0, E) for all layers, or one for each of L.
    on_layer: called after every layer.

  Returns:
    The parameters, with everything but the experts shared.

  Raises:
    ValueError: if the model has no stacked experts, or a reference is no
      expert.
  """
  config = model.config
  if config.num_experts is None or isinstance(model, FineTunes):
    raise ValueError("model must have stacked experts to align their neurons")
  moe_layers = config.moe_layers
  if is_integer(reference):
    reference = [reference] * len(moe_layers)
  if (
    not isinstance(reference, Sequence)
    or len(reference) != len(moe_layers)
    or not all(
      is_integer(one) and 0 <= one < config.num_experts for one in reference
    )
  ):
    raise ValueError(
      "reference must be an expert, or one for each layer with experts, got "
      f"reference={reference}, num_experts={config.num_experts}, "
      f"L={len(moe_layers)}"
    )
  layers = dict(params["params"])
  for layer, expert in zip(moe_layers, reference, strict=True):
    name = f"layer_{layer}"
    experts = layers[name]["experts"]
    stack = experts["stack"]
    references = [int(expert)] * stack.num_experts
    stack = reorder_neurons(stack, neuron_orders(stack, references))
    layers[name] = {**layers[name], "experts": {**experts, "stack": stack}}
    on_layer()
  return {"params": layers}


def neuron_orders(
  stack: moe.Experts,
  references: Sequence[int],
  *,
  activations: np.ndarray | None = None,
) -> np.ndarray:
  """The order of each expert's neurons that is most like its reference's.

  Args:
    stack: E experts.
    references: E experts, each one's own; an expert that is its own reference
      keeps its order.
    activations: [E, N, F], hidden units of N tokens. Two neurons are then also
      alike as far as the cosine of their units says, with the weight of one
      matrix. None is by parameters alone.

  Returns:
    [E, F] int32, which neuron comes to each place.
  """
  # Read once: one expert at a time is many small copies from an accelerator.
  stack = jax.tree.map(np.asarray, stack)
  orders = np.empty((stack.num_experts, stack.w_in.shape[-1]), np.int32)
  features = {}
  for expert, reference in enumerate(references):
    if expert == reference:
      orders[expert] = np.arange(orders.shape[1])
      continue
    if reference not in features:
      features[reference] = _features(stack, reference, activations)
    likeness = sum(
      ours @ theirs.T
      for ours, theirs in zip(
        features[reference], _features(stack, expert, activations), strict=True
      )
    )
    _, orders[expert] = optimize.linear_sum_assignment(likeness, maximize=True)
  return orders


def reorder_neurons(stack: moe.Experts, orders: np.ndarray) -> moe.Experts:
  """Puts each expert's neurons in its order [E, F], as `neuron_orders` does."""
  orders = jnp.asarray(orders)
  return dataclasses.replace(
    stack,
    **{
      name: _reorder(getattr(stack, name), orders, axis)
      for name, axis in NEURON_AXES.items()
      if getattr(stack, name) is not None
    },
  )


def _reorder(array: jax.Array, orders: jax.Array, axis: int) -> jax.Array:
  return jax.vmap(lambda one, order: jnp.take(one, order, axis=axis))(
    array, orders
  )


def _features(
  stack: moe.Experts, expert: int, activations: np.ndarray | None
) -> list[np.ndarray]:
  """What an expert's neurons read and write: matrices [F, ...] of norm 1."""

  def rows(name: str) -> list[np.ndarray]:
    array = getattr(stack, name)
    if array is None:
      return []
    one = np.asarray(array[expert], np.float32)
    if one.ndim == 1:
      return [one[:, None]]
    return [one if NEURON_AXES[name] == 0 else one.T]

  parts = [
    rows("w_in") + rows("b_in"),
    rows("w_gate") + rows("b_gate"),
    rows("w_out"),
  ]
  joined = [np.concatenate(part, axis=1) for part in parts if part]
  if activations is not None:
    units = np.asarray(activations[expert], np.float32).T
    norms = np.linalg.norm(units, axis=1, keepdims=True)
    joined.append(units / np.maximum(norms, 1e-30))
  return [part / max(np.linalg.norm(part), 1e-30) for part in joined]
