"""Writes a model to a checkpoint folder like the one that it was read from."""

import dataclasses
import itertools
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from tanbr_jax.models.base import Params
from tanbr_jax.models.decoder import Decoder
from tanbr_jax.models.huggingface import folder as folders
from tanbr_jax.models.huggingface import leaves, mapping, placing, tensor_file
from tanbr_jax.models.huggingface.config_keys import ConfigKeys
from tanbr_jax.models.huggingface.families import REGISTRY
from tanbr_jax.models.huggingface.folder import Origin
from tanbr_jax.models.huggingface.mapping import Piece
from tanbr_jax.models.huggingface.tensor_file import Tensor
from tanbr_jax.storage import atomic


def save_pretrained(
  model: Decoder, params: Params, path: str | os.PathLike[str]
) -> None:
  """Writes a checkpoint folder as `from_pretrained` read it.

  The family, the layout of the tensors and their files are those of
  `model.origin`; config.json and the tokenizer's files are carried over. An
  unchanged model's tensors have the same bytes, unless they were cast. The
  folder appears whole or not at all.

  Args:
    model: of `from_pretrained`, with its experts.
    params: its parameters, whatever their values.
    path: a new or an empty folder.

  Raises:
    ValueError: before anything is written, if the model has no origin or
      another shape than its config.json says (a merged one has), or the
      parameters do not fit it; or if there is something at the path.
  """
  origin = model.origin
  if origin is None:
    raise ValueError(
      "the model must come from from_pretrained to be written like a "
      "checkpoint, got origin=None"
    )
  check_config(model, origin)
  named = leaves.by_name(params)
  shapes, _ = leaves.shapes_of(model)
  for name in shapes.keys() | named.keys():
    wanted, got = shapes.get(name), named.get(name)
    if wanted is None or got is None or wanted.shape != got.shape:
      raise ValueError(
        f"params must have {name} of shape {getattr(wanted, 'shape', None)}, "
        f"got {getattr(got, 'shape', None)}"
      )
  with atomic.new_folder(path) as folder:
    write_folder(folder, model, origin, named)


def check_config(model: Decoder, origin: Origin) -> None:
  """Refuses a model that a config.json does not describe.

  Raises:
    ValueError: with the first field that differs.
  """
  keys = ConfigKeys(json.loads(origin.config), folders.CONFIG)
  told = REGISTRY[origin.family].config(keys)
  for field in dataclasses.fields(told):
    ours, theirs = getattr(model.config, field.name), getattr(told, field.name)
    if field.name != "dtype" and ours != theirs:
      raise ValueError(
        f"the model must be what its config.json says, got {field.name}="
        f"{ours!r} for {theirs!r}"
      )


def write_folder(
  folder: Path, model: Decoder, origin: Origin, named: Mapping[str, jax.Array]
) -> None:
  """Writes the files of an origin.

  Args:
    folder: an empty one.
    model: whose config gives the shapes and the type.
    origin: says which tensors are in which files, and what is beside them.
    named: every leaf of the parameters by name.
  """
  family, dtype = REGISTRY[origin.family], model.config.dtype
  by_key: dict[str, list[Piece]] = {}
  for piece in family.pieces(model.config, origin.layout):
    by_key.setdefault(piece.key, []).append(piece)
  # What was read without a cast is written without one.
  places, size = {}, 0
  for file, stored in itertools.groupby(
    sorted(origin.tensors, key=lambda one: one.file), lambda one: one.file
  ):
    tensors = []
    for one in stored:
      own = tensor_file.DTYPES[one.dtype]
      is_cast = dtype != origin.dtype and own.name == origin.dtype
      shape = by_key[one.key][0].tensor_shape(
        named[by_key[one.key][0].leaf].shape
      )
      tensors.append(
        Tensor(one.key, np.dtype(dtype) if is_cast else own, shape)
      )
      places[one.key] = file
    size += sum(tensor.nbytes for tensor in tensors)
    atomic.write(
      folder / file,
      lambda out, tensors=tensors: tensor_file.write(
        out, tensors, _arrays(tensors, by_key, named)
      ),
    )
  if set(places.values()) != {folders.ONE_FILE}:
    index = {"metadata": {"total_size": size}, "weight_map": places}
    text = json.dumps(index, indent=2) + "\n"
    atomic.write_text(folder / folders.INDEX, text)
  atomic.write_text(folder / folders.CONFIG, _config_text(origin, dtype))
  for name, content in origin.side_files:
    atomic.write_bytes(folder / name, content)


def _config_text(origin: Origin, dtype: str) -> str:
  if dtype == origin.dtype:
    return origin.config
  raw: dict[str, Any] = json.loads(origin.config)
  raw["torch_dtype" if "torch_dtype" in raw else "dtype"] = dtype
  return json.dumps(raw, indent=2) + "\n"


def _arrays(
  tensors: list[Tensor],
  by_key: Mapping[str, list[Piece]],
  named: Mapping[str, jax.Array],
) -> Iterator[np.ndarray]:
  """Their tensors, one after the other."""
  for key, dtype, shape in tensors:
    array = np.empty(shape, dtype)
    for piece in by_key[key]:
      part = _part(named[piece.leaf], piece.at)
      to = piece.of_tensor(array)
      if piece.is_transposed:
        placing.copy_transposed(to, part)
      else:
        to[...] = part
    yield array


def _part(leaf: jax.Array, at: mapping.Index) -> np.ndarray:
  """A part of a leaf; only that part is copied from an accelerator."""
  devices = leaf.devices()
  if len(devices) == 1 and next(iter(devices)).platform == "cpu":
    return np.asarray(leaf)[at]
  return np.asarray(leaf[at])
