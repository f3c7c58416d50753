"""Writes a merged model as the plain dense checkpoint that computes the same.

Letters: D model width, F hidden width.
"""

import dataclasses
import json
import os
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tanbr_jax import moe
from tanbr_jax.models.base import Params
from tanbr_jax.models.decoder import Decoder
from tanbr_jax.models.decoder_config import DecoderConfig
from tanbr_jax.models.huggingface import folder as folders
from tanbr_jax.models.huggingface import leaves, mapping, tensor_file, writing
from tanbr_jax.models.huggingface.config_keys import ConfigKeys
from tanbr_jax.models.huggingface.families import REGISTRY
from tanbr_jax.models.huggingface.folder import Origin, Stored
from tanbr_jax.storage import atomic

# What may differ between a merged model and its dense form: the FFN, which is
# made to fit. Parameters decide about biases.
_FITTED = frozenset(
  (
    "dense_dim",
    "dense_layers",
    "dtype",
    "expert_dim",
    "has_dense_bias",
    "has_expert_bias",
    "num_experts",
    "num_selected",
    "router",
    "shared_dim",
  )
)
# Bytes of one file, unless a tensor alone is larger.
_SHARD = 5 * 10**9


def save_dense(
  model: Decoder, params: Params, path: str | os.PathLike[str]
) -> None:
  """Writes a merged model as a folder that transformers loads as it is.

  What it computes is what the merged model does. It is a family without experts
  where one is the same otherwise (Mixtral's is Mistral, Qwen3-MoE's Qwen3,
  FlexOlmo's OLMo 2, Granite-MoE's Granite), the family itself with dense layers
  only (GLM-4.5, dots.llm1, ERNIE 4.5), or the family with one expert (OLMoE,
  GPT-OSS, MiniMax-M2). A shared expert's neurons join those of the merged
  block; narrower layers get neurons that are zero. The tokenizer's files are
  carried over. The folder appears whole or not at all.

  Args:
    model: the first result of `merge`, of a model of `from_pretrained` or
      `from_finetunes`.
    params: its parameters.
    path: a new or an empty folder.

  Raises:
    ValueError: before anything is written, if the model has experts or no
      origin, its family has no dense form (Qwen2-MoE, Phi-MoE), or there is
      something at the path.
  """
  home = find_home(model)
  named = _fit(model, params, home)
  with atomic.new_folder(path) as folder:
    writing.write_folder(folder, home, home.origin, named)


def find_home(model: Decoder) -> Decoder:
  """The model that a merged model is written as, its origin the dense form's.

  Args:
    model: merged, or one with experts, whose merged form it is about.

  Raises:
    ValueError: as `save_dense`, but for the path and the number of experts.
  """
  origin = getattr(model, "origin", None)
  if origin is None:
    raise ValueError(
      "the model must come from from_pretrained to be written as a dense "
      "checkpoint, got origin=None"
    )
  family = REGISTRY[origin.family]
  if family.no_dense_form is not None:
    raise ValueError(
      f"{family.model_type} has no dense form that computes the same: "
      f"{family.no_dense_form}"
    )
  raw = json.loads(origin.config)
  if family.dense_keys is None:
    return settle(model, raw)
  return settle(
    model, family.dense_keys(raw, model.config, _width(model.config))
  )


def settle(model: Decoder, raw: Mapping[str, Any]) -> Decoder:
  """The model that a config.json describes, to be written in its family.

  Args:
    model: one that has an origin, and that is the same but for its FFNs.
    raw: of the config.json.

  Raises:
    ValueError: if anything but the FFNs is another.
  """
  # What our reader makes of the config.json.
  config, origin = model.config, model.origin
  family, home = REGISTRY[origin.family], REGISTRY[raw["model_type"]]
  keys = ConfigKeys(raw, folders.CONFIG)
  new = dataclasses.replace(home.config(keys), dtype=config.dtype)
  keys.check_rest()
  for field in dataclasses.fields(config):
    ours, theirs = getattr(config, field.name), getattr(new, field.name)
    if field.name not in _FITTED and ours != theirs:
      raise ValueError(
        f"{home.model_type} cannot be what the {family.model_type} is: "
        f"{field.name}={ours!r}, got {theirs!r}"
      )
  # The tensors and their files.
  layout = origin.layout if home is family else home.layouts[0]
  bare = Decoder(new)
  shapes, _ = leaves.shapes_of(bare)
  tensors = mapping.tensor_shapes(
    home.pieces(new, layout),
    {name: leaf.shape for name, leaf in shapes.items()},
  )
  return dataclasses.replace(
    bare,
    origin=dataclasses.replace(
      origin,
      family=home.model_type,
      config=json.dumps(raw, indent=2) + "\n",
      layout=layout,
      tensors=_stored(tensors, origin),
      unused=(),
    ),
  )


def _width(config: DecoderConfig) -> int:
  """The hidden width of the widest FFN once shared experts are part of it."""
  merged = config.expert_dim + (config.shared_dim or 0)
  return max(merged if config.moe_layers else 0, config.dense_dim or 0)


def _stored(
  shapes: Mapping[str, tuple[int, ...]], origin: Origin
) -> tuple[Stored, ...]:
  """Their tensors in files of a bounded size; known ones keep their type."""
  known = {one.key: one.dtype for one in origin.tensors}
  default = tensor_file.name_of(np.dtype(origin.dtype))
  shards, size = [[]], 0
  for key, shape in shapes.items():
    dtype = known.get(key, default)
    own = tensor_file.Tensor(key, tensor_file.DTYPES[dtype], shape).nbytes
    if shards[-1] and size + own > _SHARD:
      shards.append([])
      size = 0
    shards[-1].append((key, dtype))
    size += own
  if len(shards) == 1:
    return tuple(Stored(*one, folders.ONE_FILE) for one in shards[0])
  return tuple(
    Stored(*one, f"model-{i + 1:05}-of-{len(shards):05}.safetensors")
    for i, shard in enumerate(shards)
    for one in shard
  )


def _fit(model: Decoder, params: Params, home: Decoder) -> dict[str, jax.Array]:
  """The leaves of the dense form by name."""
  if model.config.num_experts is not None and model.config.moe_layers:
    raise ValueError(
      "the model must be merged to be written as a dense checkpoint, got "
      f"num_experts={model.config.num_experts}"
    )
  given, (shapes, _) = leaves.by_name(params), leaves.shapes_of(home)
  blocks = {
    layer: fold_shared(params["params"][f"layer_{layer}"]["experts"]["stack"])
    for layer in range(model.config.num_layers)
  }
  named = {}
  for name, leaf in shapes.items():
    layer, _, own = name.partition("/experts/")
    if not own:
      named[name] = given[name]
    elif own.startswith("router/"):
      # One expert is chosen whatever its logit is.
      named[name] = jnp.zeros(leaf.shape, leaf.dtype)
    else:
      block = blocks[int(layer.removeprefix("layer_"))]
      array = getattr(block, own.removeprefix("stack/"))
      named[name] = _padded(array, leaf)
  _check_biases(blocks, shapes)
  return named


def _check_biases(
  blocks: Mapping[int, moe.FeedForward], shapes: Mapping[str, jax.Array]
) -> None:
  for layer, block in blocks.items():
    for name in ("b_in", "b_gate", "b_out"):
      leaf = f"layer_{layer}/experts/stack/{name}"
      if getattr(block, name) is not None and leaf not in shapes:
        raise ValueError(f"the dense form has no place for {leaf}")


def fold_shared(block: moe.FeedForward) -> moe.FeedForward:
  """Returns one block whose neurons are those of a block and its shared one.

  Args:
    block: of D and F, whose shared block has no gate.
  """
  shared = block.shared
  if shared is None:
    return block

  def join(name: str, axis: int) -> jax.Array | None:
    own, other = getattr(block, name), getattr(shared, name)
    if own is None and other is None:
      return None
    # A bias of one of the two alone.
    like = block.w_in if own is None else shared.w_in
    zeros = jnp.zeros(like.shape[-1], like.dtype)
    parts = (zeros if own is None else own, zeros if other is None else other)
    return jnp.concatenate(parts, axis=axis)

  b_out = [b for b in (block.b_out, shared.b_out) if b is not None]
  return moe.FeedForward(
    w_in=join("w_in", 1),
    w_out=join("w_out", 0),
    w_gate=join("w_gate", 1),
    b_in=join("b_in", 0),
    b_gate=join("b_gate", 0),
    b_out=sum(b_out[1:], start=b_out[0]) if b_out else None,
    activation=block.activation,
  )


def _padded(array: jax.Array | None, leaf: jax.ShapeDtypeStruct) -> jax.Array:
  """The array with zeros after its end, and an axis for the one expert."""
  if array is None:
    return jnp.zeros(leaf.shape, leaf.dtype)
  wanted = leaf.shape[len(leaf.shape) - array.ndim :]
  if array.shape != wanted:
    room = [
      (0, new - old) for new, old in zip(wanted, array.shape, strict=True)
    ]
    array = jnp.pad(array, room)
  return array if array.shape == leaf.shape else array[None]
