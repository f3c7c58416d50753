"""Between the model of experts and the dense one: merge, and its reverse."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding

from tanbr_jax import kernels, moe
from tanbr_jax.models import fine_tunes
from tanbr_jax.models.base import Model, ModelConfig, Params
from tanbr_jax.models.decoder import Decoder
from tanbr_jax.models.fine_tunes import FineTunes
from tanbr_jax.moe import expert_parallel, feed_forward
from tanbr_jax.moe.parameters import ARRAYS, check_number


def merge(
  model: Model, params: Params, merge_weights: jax.Array
) -> tuple[Model, Params]:
  """Averages the experts of every layer into one dense block.

  Of fine-tunes everything that differs is averaged, see `FineTunes`.

  Differentiable in the parameters and in the weights. Outside of `jax.jit`,
  what is not merged is shared by both models and not copied.

  Args:
    model: a model with experts.
    params: its parameters, as `model.init` returns them.
    merge_weights: floating [E], the same for every layer, or [L, E].

  Returns:
    The dense model and its parameters: no expert axis, no router.

  Raises:
    ValueError: if the model is dense already, the weights are no floating
      array of such a shape, or constants stand in dropped experts' place, which
      only gates can weigh.
  """
  weights = layer_weights(model.config, merge_weights)
  if isinstance(model, FineTunes):
    return model.dense, fine_tunes.merge(params, weights)
  layers = dict(params["params"])
  sharding = getattr(model, "sharding", None)
  names = [f"layer_{layer}" for layer in model.config.moe_layers]
  if held := [name for name in names if "constants" in layers[name]["experts"]]:
    raise ValueError(f"constants in an expert's place do not merge: {held[0]}")
  stacks = [layers[name]["experts"]["stack"] for name in names]
  if hasattr(model, "merge_layers"):
    blocks = model.merge_layers(stacks, weights)
  else:
    blocks = _merge_all(stacks, weights, sharding)
  for name, block in zip(names, blocks, strict=True):
    layers[name] = {**layers[name], "experts": {"stack": block}}
  return dense_form(model), {"params": layers}


def layer_weights(config: ModelConfig, merge_weights: jax.Array) -> jax.Array:
  """Returns merge weights [L, E] of [E] or [L, E]; errors as `merge`."""
  num_layers, num_experts = len(config.moe_layers), config.num_experts
  if num_experts is None:
    raise ValueError("model must have experts, got num_experts=None")
  kernels.check_is_array(merge_weights=merge_weights)
  shapes = (num_experts,), (num_layers, num_experts)
  if merge_weights.shape not in shapes or not jnp.issubdtype(
    merge_weights.dtype, jnp.floating
  ):
    raise ValueError(
      "merge_weights must be floating [E] or [L, E], got "
      f"{merge_weights.dtype}{merge_weights.shape} for E={num_experts}, "
      f"L={num_layers}"
    )
  return jnp.broadcast_to(merge_weights, (num_layers, num_experts))


def dense_form(model: Model) -> Model:
  """The model of one block a layer that merging a model of experts makes."""
  if isinstance(model, FineTunes):
    return model.dense
  config = dataclasses.replace(model.config, num_experts=None)
  return dataclasses.replace(model, config=config)


def merge_copies(model: Decoder, params: Params) -> tuple[Decoder, Params]:
  """Makes one FFN of the first layers' experts while they are copies.

  A model that was upcycled and trained in its last layers alone holds each FFN
  of the others E times. Any merge and any choice of K experts, whose gates sum
  to one, compute that FFN; without the copies no merge reads them and no
  derivative in merge weights goes through these layers. Usage is that of the
  layers which are left.

  Args:
    model: with experts.
    params: its parameters, concrete arrays.

  Returns:
    The model with these layers dense, without an origin, and its parameters;
    the last layer keeps its experts. A model that is dense or has dense layers,
    a shared expert, biases of experts or gates with another sum, or whose first
    layer's experts differ or do not take all that the router chooses, as it is.
  """
  config, router = model.config, model.config.router
  is_mean = router.renormalise and router.gate_scale == 1
  is_mean = is_mean and router.scores != "sparsemixer"
  has_more = config.dense_layers or config.has_expert_bias or config.shared_dim
  if config.num_experts is None or has_more or not is_mean:
    return model, params
  layers, count = dict(params["params"]), 0
  for index in range(config.num_layers - 1):
    layer = layers[f"layer_{index}"]
    if not _are_copies(layer["experts"]):
      break
    stack = layer["experts"]["stack"]
    block = moe.FeedForward(**vars(jax.tree.map(lambda x: x[0], stack)))
    layers[f"layer_{index}"] = {**layer, "experts": {"stack": block}}
    count += 1
  if not count:
    return model, params
  config = dataclasses.replace(
    config,
    dense_layers=tuple(range(count)),
    dense_dim=config.expert_dim,
  )
  dense = dataclasses.replace(model, config=config, origin=None)
  return dense, {"params": layers}


def _are_copies(experts: Params) -> bool:
  """Whether a layer's experts are alike and no output of its router is lost."""
  routes = experts.get("routes")
  if routes is not None and moe.NO_EXPERT in routes.expert_of:
    return False
  leaves = jax.tree.leaves(experts["stack"])
  return all(bool(jnp.all(x == x[:1])) for x in leaves)


def _merge_all(
  stacks: list[moe.Experts],
  weights: jax.Array,
  sharding: NamedSharding | None,
) -> list[moe.FeedForward]:
  # What is not merged stays out of the program, which would copy it.
  shared = [(stack.shared, stack.shared_gate) for stack in stacks]
  own = [feed_forward.without_shared(stack) for stack in stacks]
  return [
    dataclasses.replace(block, shared=block_shared, shared_gate=gate)
    for block, (block_shared, gate) in zip(
      _merge_own(own, weights, sharding=sharding), shared, strict=True
    )
  ]


# One program however it is called: no step of it is kept in float32.
@functools.partial(jax.jit, static_argnames="sharding")
def _merge_own(
  stacks: list[moe.Experts],
  weights: jax.Array,
  *,
  sharding: NamedSharding | None,
) -> list[moe.FeedForward]:
  merge_one = moe.merge
  if sharding is not None:
    merge_one = functools.partial(expert_parallel.merge, sharding=sharding)
  return [merge_one(stack, weights[i]) for i, stack in enumerate(stacks)]


def upcycle(
  key: jax.Array,
  model: Model,
  dense_params: Params,
  *,
  noise: float = 0.0,
) -> Params:
  """Makes E experts of each dense block, and a fresh router.

  Komatsuzaki et al., Sparse Upcycling (2022), with noise on the copies. Where
  the experts are narrower than the dense block by a factor P, each copy is cut
  into P of them, which the router chooses together as they have one logit; a
  model whose gates sum to one computes what the dense one does then too. (He et
  al., Upcycling Large Language Models into Mixture of Experts, 2024.)

  Args:
    key: random key, consumed.
    model: the model with experts that the parameters are for.
    dense_params: parameters of its dense form, or, for narrower experts, of a
      dense model of P times the width; P divides E and K.
    noise: standard deviation of each copy's independent noise, in units of
      the standard deviation of the matrix; finite and at least 0.

  Returns:
    Parameters of `model`.

  Raises:
    ValueError: if the noise is negative or not finite, the model is dense, or
      the widths do not fit.
  """
  check_number("noise", noise, at_least=0)
  num_experts = model.config.num_experts
  if num_experts is None:
    raise ValueError("model must have experts, got num_experts=None")
  init_key, noise_key = jax.random.split(key)
  fresh = model.init(init_key)
  layers = dict(dense_params["params"])
  for layer in model.config.moe_layers:
    name = f"layer_{layer}"
    dense = layers[name]["experts"]["stack"]
    parts = _num_parts(model.config, dense)
    layer_key = jax.random.fold_in(noise_key, layer)
    experts = {
      **fresh["params"][name]["experts"],
      "stack": _copies(layer_key, dense, num_experts // parts, noise),
    }
    if parts > 1:
      experts["stack"] = _cut(experts["stack"], parts)
      experts["router"] = {
        name: jnp.repeat(leaf[..., ::parts], parts, axis=-1)
        for name, leaf in experts["router"].items()
      }
    layers[name] = {**layers[name], "experts": experts}
  return {"params": layers}


def _num_parts(config: ModelConfig, dense: moe.FeedForward) -> int:
  """How many experts one dense block is cut into."""
  width, expert_dim = dense.w_in.shape[-1], config.expert_dim
  parts = width // expert_dim
  numbers = (config.num_experts, config.num_selected)
  if parts * expert_dim != width or any(n % parts for n in numbers):
    raise ValueError(
      "the dense width must be a multiple P of expert_dim, and P divide "
      f"num_experts and num_selected, got width={width}, expert_dim="
      f"{expert_dim}, num_experts={numbers[0]}, num_selected={numbers[1]}"
    )
  return parts


def _cut(stack: moe.Experts, parts: int) -> moe.Experts:
  """Cuts each expert into P of F / P neurons, which follow each other.

  Their gates are 1 / P of the whole one's, hence outputs are P times as large.
  An output bias is whole in each part: the gates make the mean of them.
  """

  def columns(array: jax.Array | None) -> jax.Array | None:
    if array is None:
      return None
    own = array.reshape(*array.shape[:-1], parts, -1)
    own = jnp.moveaxis(own, -2, 1)  # [E / P, P, ..., F / P]
    return own.reshape(-1, *own.shape[2:])

  b_out = stack.b_out
  rows = stack.w_out.shape[-2] // parts
  return dataclasses.replace(
    stack,
    w_in=columns(stack.w_in),
    w_gate=columns(stack.w_gate),
    b_in=columns(stack.b_in),
    b_gate=columns(stack.b_gate),
    w_out=parts * stack.w_out.reshape(-1, rows, stack.w_out.shape[-1]),
    b_out=None if b_out is None else jnp.repeat(b_out, parts, axis=0),
  )


def _copies(
  key: jax.Array, dense: moe.FeedForward, num_experts: int, noise: float
) -> moe.Experts:
  """E copies of what experts have of their own; what is shared stays shared."""
  in_key, out_key = jax.random.split(key)
  keys = {"w_in": in_key, "w_out": out_key}
  arrays = {}
  for index, name in enumerate(ARRAYS):
    array = getattr(dense, name)
    if array is not None:
      own_key = keys.get(name, jax.random.fold_in(key, index))
      shape = (num_experts, *array.shape)
      # Copies alone need no draws of their size.
      if not isinstance(noise, jax.core.Tracer) and noise == 0:
        arrays[name] = jnp.broadcast_to(array, shape)
        continue
      draws = jax.random.normal(own_key, shape, array.dtype)
      arrays[name] = array[None] + noise * jnp.std(array) * draws
  return moe.Experts(
    **arrays,
    shared=dense.shared,
    shared_gate=dense.shared_gate,
    activation=dense.activation,
  )


def expert_bytes(params: Params) -> int:
  """Returns the bytes of all experts (or merged blocks), routers left out.

  Of fine-tunes they are those of every tensor that differs, base included.
  """
  own = fine_tunes.variants_bytes(params)
  if own is not None:
    return own
  layers = params["params"]
  stacks = [
    value["experts"]["stack"]
    for name, value in layers.items()
    if name.startswith("layer_")
  ]
  return sum(leaf.nbytes for leaf in jax.tree.leaves(stacks))
