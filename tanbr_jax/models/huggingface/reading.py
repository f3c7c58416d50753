"""Reads a checkpoint folder, or a GGUF file, into a model and parameters."""

import dataclasses
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from absl import logging
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from tanbr_jax.models.base import Params
from tanbr_jax.models.decoder import Decoder
from tanbr_jax.models.decoder_config import DTYPES, DecoderConfig
from tanbr_jax.models.huggingface import folder as folders
from tanbr_jax.models.huggingface import (
  gguf_file,
  leaves,
  mapping,
  placing,
  tensor_file,
)
from tanbr_jax.models.huggingface.config_keys import ConfigKeys
from tanbr_jax.models.huggingface.families import REFUSED, REGISTRY
from tanbr_jax.models.huggingface.family import Family
from tanbr_jax.models.huggingface.folder import Origin, Stored
from tanbr_jax.models.huggingface.mapping import Piece
from tanbr_jax.models.huggingface.tensor_file import Entry


def from_pretrained(
  path: str | os.PathLike[str],
  *,
  dtype: str | jnp.dtype | None = None,
  sharding: NamedSharding | None = None,
) -> tuple[Decoder, Params]:
  """Reads a checkpoint folder: config.json and *.safetensors; or a GGUF file.

  Every tensor is read once, through a memory map, and cast on its way to the
  device. Tensors that the family is known to carry and that are not needed are
  logged and listed in `model.origin.unused`.

      model, params = models.from_pretrained(models.find_smollm2())

  Args:
    path: the folder; its model type is one of `huggingface.REGISTRY`. Or a
      file "*.gguf" of a Llama model, whose tensors are float32 once read.
    dtype: of parameters and computation, one of `DTYPES`, by name or as a
      type; None for the checkpoint's. Routers are float32.
    sharding: how the first axis of a layer's experts, [E, ...], is spread, for
      instance `NamedSharding(mesh, PartitionSpec("experts"))`; the number of
      devices divides E. Everything else is copied to all devices of the mesh,
      whose axes are taken as automatic. None puts all on the default device.

  Returns:
    The model, which remembers where it came from, and its parameters.

  Raises:
    ValueError: before any array is made, in one line that names the file and
      the key: if a file is missing, cut or damaged, the model type or a key of
      config.json is not understood, a tensor is missing, not known or of
      another shape, the dtype is none of `DTYPES`, or the experts cannot be
      spread so.
  """
  found = check(path, dtype=dtype, sharding=sharding)
  if found.origin.unused:
    logging.info("%s: not used: %s", path, ", ".join(found.origin.unused))
  # Nothing can be wrong with what follows.
  arrays = dict(read_leaves(found))
  params = jax.tree.unflatten(
    found.structure, [arrays[name] for name in found.shapes]
  )
  return found.model, params


class Checkpoint(NamedTuple):
  """A folder that has been checked, of whose tensors none has been read.

  Attributes:
    model: which remembers the folder as its origin.
    shapes: shape and type of every leaf of its parameters, by name.
    structure: of the tree of these leaves.
    pieces: what leaves and tensors have in common.
    entries: where every tensor is.
  """

  model: Decoder
  shapes: Mapping[str, Any]
  structure: Any
  pieces: list[Piece]
  entries: Mapping[str, Entry]

  @property
  def origin(self) -> Origin:
    """Where the model came from."""
    return self.model.origin


def check(
  path: str | os.PathLike[str],
  *,
  dtype: str | None = None,
  sharding: NamedSharding | None = None,
) -> Checkpoint:
  """Refuses what `from_pretrained` does, before any array is made.

  Args:
    path: as for `from_pretrained`.
    dtype: as for `from_pretrained`.
    sharding: as for `from_pretrained`.
  """
  folder = Path(path)
  single = None
  if gguf_file.is_gguf(folder):
    single = gguf_file.read_contents(folder)
  family, keys, text = _read_config(folder, single)
  config = family.config(keys)
  keys.check_rest()
  entries = folders.read_entries(folder) if single is None else single.entries
  own_dtype = _dtype(folder, keys, entries)
  if dtype is not None and not isinstance(dtype, str):
    dtype = jnp.dtype(dtype).name
  config = dataclasses.replace(config, dtype=dtype or own_dtype)
  model = Decoder(config, sharding=_without_types(sharding))
  shapes, structure = leaves.shapes_of(model)
  layout, pieces = _layout(family, config, entries)
  unused = _check_tensors(folder, family, config, pieces, shapes, entries)
  used = {piece.key for piece in pieces}
  origin = Origin(
    family.model_type,
    text,
    layout,
    own_dtype,
    tuple(
      Stored(
        key,
        tensor_file.name_of(entry.dtype),
        entry.file.name if single is None else folders.ONE_FILE,
      )
      for key, entry in entries.items()
      if key in used
    ),
    unused,
    folders.read_side_files(folder) if single is None else single.side_files,
  )
  model = dataclasses.replace(model, origin=origin)
  return Checkpoint(model, shapes, structure, pieces, entries)


def _read_config(
  folder: Path, single: gguf_file.Contents | None
) -> tuple[Family, ConfigKeys, str]:
  """The family, the config's keys, and the text of config.json."""
  if single is not None:
    raw, path, text = json.loads(single.config), folder, single.config
  else:
    path = folder / folders.CONFIG
    raw, text = folders.read_json(path), path.read_text("utf-8")
  keys = ConfigKeys(raw, str(path))
  kind = raw.get("model_type")
  if kind in REFUSED or raw.get("is_encoder_decoder"):
    why = REFUSED.get(kind, "it is an encoder-decoder")
    raise keys.error(f"model_type {kind!r} is not read: {why}")
  if kind not in REGISTRY:
    raise keys.error(
      f"model_type must be one of {sorted(REGISTRY)}, got model_type={kind!r}"
    )
  if raw.get("quantization_config"):
    method = raw["quantization_config"]
    if isinstance(method, dict):
      method = method.get("quant_method")
    raise keys.error(f"quantised files are not read, got {method!r}")
  return REGISTRY[kind], keys, text


def _dtype(folder: Path, keys: ConfigKeys, entries: Mapping[str, Entry]) -> str:
  """The type that config.json names, or else that of the embedding."""
  named = keys.get("dtype", None, "torch_dtype")
  if named is None:
    first = entries.get("model.embed_tokens.weight")
    named = None if first is None else first.dtype.name
  if named not in DTYPES:
    raise keys.error(f"dtype must be one of {DTYPES}, got dtype={named!r}")
  return named


def _without_types(sharding: NamedSharding | None) -> NamedSharding | None:
  """The sharding in a mesh of automatic axes, whatever its own are."""
  if sharding is None:
    return None
  mesh = Mesh(sharding.mesh.devices, sharding.mesh.axis_names)
  return NamedSharding(mesh, sharding.spec)


def _layout(
  family: Family, config: DecoderConfig, entries: Mapping[str, Entry]
) -> tuple[str, list[Piece]]:
  """The layout that has most of its tensors there, and its pieces."""
  layouts = {name: family.pieces(config, name) for name in family.layouts}

  def share(name: str) -> float:
    keys = {piece.key for piece in layouts[name]}
    return len(keys & entries.keys()) / len(keys)

  best = max(layouts, key=share)
  return best, layouts[best]


def _check_tensors(
  folder: Path,
  family: Family,
  config: DecoderConfig,
  pieces: list[Piece],
  shapes: Mapping[str, Any],
  entries: Mapping[str, Entry],
) -> tuple[str, ...]:
  """Refuses tensors that are not as they must be; returns the unused ones."""
  expected = mapping.tensor_shapes(
    pieces, {name: leaf.shape for name, leaf in shapes.items()}
  )
  missing = [key for key in expected if key not in entries]
  if missing:
    raise ValueError(
      f"{str(folder)!r} lacks the tensor {missing[0]!r} of shape "
      f"{expected[missing[0]]} ({len(missing)} missing in all)"
    )
  unused = []
  for key, entry in entries.items():
    if key not in expected:
      if not family.is_unused(key, config):
        raise ValueError(
          f"{str(entry.file)!r} holds {key!r} of shape {entry.shape}, which "
          f"{family.model_type} is not known to have"
        )
      unused.append(key)
    elif entry.shape != expected[key]:
      raise ValueError(
        f"{str(entry.file)!r}: {key!r} must be {expected[key]}, got "
        f"{entry.shape}"
      )
    elif entry.dtype.name not in (*DTYPES, "float64"):
      raise ValueError(
        f"{str(entry.file)!r}: {key!r} must be of a type in {DTYPES}, got "
        f"{entry.dtype.name}"
      )
  return tuple(unused)


def read_leaves(found: Checkpoint) -> Iterator[tuple[str, jax.Array]]:
  """Yields every leaf and its name, filled from the files one by one."""
  reader = tensor_file.Reader()
  pieces: dict[str, list[Piece]] = {name: [] for name in found.shapes}
  for piece in found.pieces:
    pieces[piece.leaf].append(piece)
  for name, leaf in found.shapes.items():
    sources = [
      placing.Source(
        piece.at,
        piece.of_tensor(reader.view(found.entries[piece.key])),
        piece.is_transposed,
      )
      for piece in pieces[name]
    ]
    spread = found.model.sharding
    if spread is not None and not leaves.is_expert(name, found.model):
      spread = NamedSharding(spread.mesh, PartitionSpec())
    yield name, placing.fill(leaf, sources, spread)
