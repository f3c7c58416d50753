"""Between the model of experts and the dense one: merge, and its reverse."""

import dataclasses
from typing import Any, TypeVar

import jax
import jax.numpy as jnp

from tanbr_jax import moe
from tanbr_jax.models.byte_lm import ByteLM
from tanbr_jax.models.decoder import Decoder

Params = dict[str, Any]
Model = TypeVar("Model", ByteLM, Decoder)


def merge(
  model: Model, params: Params, merge_weights: jax.Array
) -> tuple[Model, Params]:
  """Averages the experts of every layer into one dense block.

  Differentiable in the parameters and in the weights.

  Args:
    model: a model with experts.
    params: its parameters, as `model.init` returns them.
    merge_weights: [E], the same for every layer, or [L, E].

  Returns:
    The dense model and its parameters: no expert axis, no router.

  Raises:
    ValueError: if the model is dense already or the weights' shape is wrong.
  """
  config = model.config
  num_layers, num_experts = config.num_layers, config.num_experts
  if num_experts is None:
    raise ValueError("model must have experts, got num_experts=None")
  if merge_weights.shape not in ((num_experts,), (num_layers, num_experts)):
    raise ValueError(
      "merge_weights must be [E] or [L, E], got "
      f"{merge_weights.shape} for E={num_experts}, L={num_layers}"
    )
  weights = jnp.broadcast_to(merge_weights, (num_layers, num_experts))
  layers = dict(params["params"])
  for layer in range(num_layers):
    name = f"layer_{layer}"
    stack = moe.merge(layers[name]["experts"]["stack"], weights[layer])
    layers[name] = {**layers[name], "experts": {"stack": stack}}
  dense = type(model)(dataclasses.replace(config, num_experts=None))
  return dense, {"params": layers}


def upcycle(
  key: jax.Array,
  model: ByteLM,
  dense_params: Params,
  *,
  noise: float = 0.0,
) -> Params:
  """Makes E experts of each dense block, and a fresh router.

  Komatsuzaki et al., Sparse Upcycling (2022), with noise on the copies.

  Args:
    key: random key, consumed.
    model: the model with experts that the parameters are for.
    dense_params: parameters of its dense form.
    noise: standard deviation of each copy's independent noise, in units of
      the standard deviation of the matrix.

  Returns:
    Parameters of `model`.
  """
  init_key, noise_key = jax.random.split(key)
  fresh = model.init(init_key, input_ids=jnp.zeros((1, 1), jnp.int32))
  layers = dict(dense_params["params"])
  for layer in range(model.config.num_layers):
    name = f"layer_{layer}"
    dense = layers[name]["experts"]["stack"]
    layer_key = jax.random.fold_in(noise_key, layer)
    experts = {
      **fresh["params"][name]["experts"],
      "stack": _copies(layer_key, dense, model.config.num_experts, noise),
    }
    layers[name] = {**layers[name], "experts": experts}
  return {"params": layers}


def _copies(
  key: jax.Array, dense: moe.FeedForward, num_experts: int, noise: float
) -> moe.Experts:
  def copy(key: jax.Array, matrix: jax.Array) -> jax.Array:
    shape = (num_experts, *matrix.shape)
    scale = noise * jnp.std(matrix)
    return matrix[None] + scale * jax.random.normal(key, shape)

  in_key, out_key = jax.random.split(key)
  return moe.Experts(
    w_in=copy(in_key, dense.w_in),
    w_out=copy(out_key, dense.w_out),
    activation=dense.activation,
  )


def expert_bytes(params: Params) -> int:
  """Returns the bytes of all experts (or merged blocks), routers left out."""
  layers = params["params"]
  stacks = [
    value["experts"]["stack"]
    for name, value in layers.items()
    if name.startswith("layer_")
  ]
  return sum(leaf.nbytes for leaf in jax.tree.leaves(stacks))
