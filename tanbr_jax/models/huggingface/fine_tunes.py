"""Reads fine-tunes or adapters of one dense model as the experts of one model.

Letters: E experts, U full values of a tensor, P ranks of its products together.
"""

import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from absl import logging

from tanbr_jax.models.base import Params
from tanbr_jax.models.decoder_config import DecoderConfig
from tanbr_jax.models.fine_tunes import (
  BASE,
  Difference,
  FineTunes,
  LowRank,
  Variants,
)
from tanbr_jax.models.huggingface import adapter_folder, placing, reading
from tanbr_jax.models.huggingface import folder as folders
from tanbr_jax.models.huggingface.adapter_folder import Changes, Factors
from tanbr_jax.models.huggingface.mapping import Piece
from tanbr_jax.models.huggingface.placing import Source
from tanbr_jax.models.huggingface.reading import Checkpoint
from tanbr_jax.models.huggingface.tensor_file import Reader

_CHUNK = 1 << 18  # values compared at a time, which stay in the cache
_TOKENIZER = "tokenizer.json"


def from_finetunes(
  base: str | os.PathLike[str],
  paths: Sequence[str | os.PathLike[str]],
  *,
  dtype: str | None = None,
) -> tuple[FineTunes, Params]:
  """Reads E variants of one dense model as a model with E experts.

      model, params = models.from_finetunes("base", ["math", "code"])
      print(models.difference_table(model))
      dense, merged = models.merge(model, params, jnp.array([0.3, 0.7]))
      models.save_pretrained(dense, merged, "merged")

  The variants are folders of whole fine-tunes, or of LoRA adapters as PEFT
  writes them (adapter_config.json, adapter_model.safetensors). Merging takes
  the weighted average of their weights: of adapters the base plus the weighted
  sum of their products, which stay factors until then. A tensor that none has
  changed is there once. The model has no router and serves merged.

  Every tensor is read twice, to be compared with the base's and to be put
  where it stays; what is equal after the cast counts as equal.

  Args:
    base: folder of a dense model that `from_pretrained` reads.
    paths: E folders, all of fine-tunes or all of adapters; the base's own may
      be one of either. Adapters may have any target modules, ranks and scales,
      biases of their own, and `modules_to_save`.
    dtype: of parameters and computation; None for the base's.

  Returns:
    The model, which tells what differs (`differences`, `difference_table`),
    and its parameters. What merging makes of it is the base's model, which
    `save_pretrained` writes like the base.

  Raises:
    ValueError: before any array is made, in one line that names the file and
      the key: for what `from_pretrained` refuses, a base with experts,
      fine-tunes of another shape, vocabulary or tokenizer, values that are not
      finite, and adapters that are more than LoRA (DoRA, base weights changed
      at the start, embeddings and heads that are one).
  """
  checked = check(base, paths, dtype=dtype)
  found, changes = checked.base, checked.changes
  views = {
    p.key: checked.reader.view(found.entries[p.key]) for p in found.pieces
  }
  differences = _compare(views, changes, found)
  # Nothing can be wrong with what follows.
  params = _fill(found, views, changes, has_base=checked.is_adapter)
  model = FineTunes(found.model, checked.names, differences)
  equal = len(views) - len(differences)
  logging.info("%d of %d tensors are equal in all", equal, len(views))
  return model, params


class Checked(NamedTuple):
  """Folders that have been checked, of whose tensors none has been read.

  Attributes:
    base: the base's.
    reader: of all files.
    changes: what each variant has of its own, as it lies in the files.
    is_adapter: whether the variants are adapters.
    names: of the variants.
  """

  base: Checkpoint
  reader: Reader
  changes: list[Changes]
  is_adapter: bool
  names: tuple[str, ...]

  @property
  def config(self) -> DecoderConfig:
    """The base's, of a dense model."""
    return self.base.model.config


def check(
  base: str | os.PathLike[str],
  paths: Sequence[str | os.PathLike[str]],
  *,
  dtype: str | None = None,
) -> Checked:
  """Refuses what `from_finetunes` does, but for values that are not finite.

  Args:
    base: as for `from_finetunes`.
    paths: as for `from_finetunes`.
    dtype: as for `from_finetunes`.
  """
  variants = _folders(paths)
  found = reading.check(base, dtype=dtype)
  config = found.model.config
  if config.num_experts is not None:
    raise ValueError(
      f"the base must be dense, got num_experts={config.num_experts} in "
      f"{str(base)!r}"
    )
  reader = Reader()
  # The base itself may be among them.
  others = [one for one in variants if not one.samefile(base)]
  is_adapter = _are_adapters(others)
  read = adapter_folder.read if is_adapter else _read_fine_tune
  changes = [
    read(folder, found, reader)
    if folder in others
    else Changes(str(folder), {}, {})
    for folder in variants
  ]
  for folder in variants:
    _check_tokenizer(folder, found)
  names = tuple(folder.resolve().name for folder in variants)
  if len(set(names)) < len(names):
    names = tuple(map(str, variants))
  return Checked(found, reader, changes, is_adapter, names)


def _folders(paths: Sequence[str | os.PathLike[str]]) -> list[Path]:
  if isinstance(paths, str | os.PathLike) or not len(paths):
    raise ValueError(f"paths must be a list of folders, got {paths!r}")
  found = [Path(path) for path in paths]
  for folder in found:
    if not folder.is_dir():
      raise ValueError(f"there is no folder {str(folder)!r}")
  return found


def _are_adapters(variants: Sequence[Path]) -> bool:
  """Whether all folders are of adapters; refuses some."""
  found = [(folder / adapter_folder.CONFIG).is_file() for folder in variants]
  if len(set(found)) > 1:
    raise ValueError(
      "paths must be all of fine-tunes or all of adapters, got the adapter "
      f"{str(variants[found.index(True)])!r} beside "
      f"{str(variants[found.index(False)])!r}"
    )
  return any(found)


def _read_fine_tune(folder: Path, base: Checkpoint, reader: Reader) -> Changes:
  """All tensors of a fine-tune, whose shapes are the base's."""
  config = base.model.config
  own = reading.check(folder, dtype=config.dtype)
  pairs = {"model_type": (own.origin.family, base.origin.family)} | {
    name: (getattr(own.model.config, name), value)
    for name, value in vars(config).items()
    # How long a text may be changes nothing for shorter ones.
    if name != "context"
  }
  for name, (ours, theirs) in pairs.items():
    if ours != theirs:
      raise ValueError(
        f"{str(folder / folders.CONFIG)!r}: {name} must be the base's "
        f"{theirs!r}, got {ours!r}"
      )
  return Changes(
    str(folder),
    {p.key: reader.view(own.entries[p.key]) for p in own.pieces},
    {},
  )


def _check_tokenizer(folder: Path, base: Checkpoint) -> None:
  """Refuses a tokenizer that has another token in the place of one."""
  text = dict(base.origin.side_files).get(_TOKENIZER)
  path = folder / _TOKENIZER
  if text is None or not path.is_file() or path.read_bytes() == text:
    return
  ours = _vocabulary(folders.read_json(path))
  theirs = _vocabulary(json.loads(text))
  for index in sorted(ours.keys() & theirs.keys()):
    if ours[index] != theirs[index]:
      raise ValueError(
        f"{str(path)!r}: token {index} must be the base's "
        f"{theirs[index]!r}, got {ours[index]!r}"
      )


def _vocabulary(tokenizer: Mapping[str, Any]) -> dict[int, str]:
  vocab = (tokenizer.get("model") or {}).get("vocab") or {}
  if isinstance(vocab, list):
    vocab = {token: index for index, (token, *_) in enumerate(vocab)}
  found = {index: token for token, index in vocab.items()}
  added = tokenizer.get("added_tokens") or []
  return found | {one["id"]: one["content"] for one in added}


def _compare(
  views: Mapping[str, np.ndarray], changes: Sequence[Changes], base: Checkpoint
) -> tuple[Difference, ...]:
  """The tensors that differ; what is equal is taken out of the changes."""
  dtype = np.dtype(base.model.config.dtype)
  differences = []
  for key, view in views.items():
    norms = [_change(own, key, view, dtype) for own in changes]
    if not any(norms):
      continue
    size = _distance(view, None, dtype) or 1.0
    for own, norm in zip(changes, norms, strict=True):
      if not math.isfinite(norm / size):
        raise ValueError(
          f"{own.source!r}: {key!r} holds values that are not finite"
        )
    differences.append(Difference(key, tuple(norm / size for norm in norms)))
  return tuple(differences)


def _change(own: Changes, key: str, view: np.ndarray, dtype: np.dtype) -> float:
  """How far an expert's tensor is from the base's.

  Of a tensor that is changed both ways it is the sum, a bound.
  """
  value, factors = own.values.get(key), own.updates.get(key)
  norm = 0.0 if value is None else _distance(value, view, dtype)
  if norm == 0:
    own.values.pop(key, None)
  extra = 0.0 if factors is None else factors.norm()
  if extra == 0:
    own.updates.pop(key, None)
  return norm + extra


def _distance(
  value: np.ndarray, other: np.ndarray | None, dtype: np.dtype
) -> float:
  """The norm of the difference of two tensors after a cast, part by part."""
  flat, total = value.reshape(-1), 0.0
  for begin in range(0, flat.size, _CHUNK):
    part = slice(begin, begin + _CHUNK)
    one = flat[part].astype(dtype, copy=False)
    if other is not None:
      two = other.reshape(-1)[part].astype(dtype, copy=False)
      if np.array_equal(one.view(np.uint8), two.view(np.uint8)):
        continue
      one = one.astype(np.float32) - two.astype(np.float32)
    wide = one.astype(np.float32, copy=False)
    total += float(np.dot(wide, wide))
  return math.sqrt(total)


def _fill(
  base: Checkpoint,
  views: Mapping[str, np.ndarray],
  changes: Sequence[Changes],
  *,
  has_base: bool,
) -> Params:
  """The parameters; `has_base` keeps the base's values of what differs."""
  by_leaf: dict[str, list[Piece]] = {name: [] for name in base.shapes}
  for piece in base.pieces:
    by_leaf[piece.leaf].append(piece)
  filled = []
  for name, leaf in base.shapes.items():
    pieces = by_leaf[name]
    keys = {piece.key for piece in pieces}
    own = [e for e, one in enumerate(changes) if keys & one.values.keys()]
    updates = _updates(leaf, pieces, changes)
    if not own and not updates:
      sources = [Source(p.at, views[p.key], p.is_transposed) for p in pieces]
      filled.append(placing.fill(leaf, sources, None))
      continue
    if has_base or len(own) < len(changes):
      own = [BASE, *own]
    sources = [
      Source(
        (row, *piece.at),
        views[piece.key]
        if expert == BASE
        else changes[expert].values.get(piece.key, views[piece.key]),
        piece.is_transposed,
      )
      for row, expert in enumerate(own)
      for piece in pieces
    ]
    stacked = jax.ShapeDtypeStruct((len(own), *leaf.shape), leaf.dtype)
    values = placing.fill(stacked, sources, None)
    filled.append(Variants(values, tuple(own), updates))
  return jax.tree.unflatten(base.structure, filled)


def _updates(
  leaf: jax.ShapeDtypeStruct,
  pieces: Sequence[Piece],
  changes: Sequence[Changes],
) -> tuple[LowRank, ...]:
  """What adapters add to a leaf, one product for each of its pieces."""
  found = []
  for piece in pieces:
    own = {
      e: one.updates[piece.key]
      for e, one in enumerate(changes)
      if piece.key in one.updates
    }
    if own:
      found.append(_update(leaf, piece, own))
  return tuple(found)


def _update(
  leaf: jax.ShapeDtypeStruct, piece: Piece, own: Mapping[int, Factors]
) -> LowRank:
  columns = None
  if piece.at:
    columns = piece.at[-1].start, piece.at[-1].stop
  oriented = [
    factors.transposed() if piece.is_transposed else factors
    for factors in own.values()
  ]
  ranks = [factors.rank for factors in oriented]
  ends = np.cumsum([0, *ranks]).tolist()
  places = [slice(a, b) for a, b in zip(ends, ends[1:], strict=False)]

  def join(axis: int, parts: Sequence[np.ndarray]) -> jax.Array:
    shape = list(parts[0].shape)
    shape[axis] = ends[-1]
    sources = [
      Source((slice(None),) * axis + (place,), part, is_transposed=False)
      for place, part in zip(places, parts, strict=True)
    ]
    struct = jax.ShapeDtypeStruct(tuple(shape), leaf.dtype)
    return placing.fill(struct, sources, None)

  left = None
  if oriented[0].up is not None:
    left = join(1, [factors.up for factors in oriented])
  # The scale is in one of the factors.
  right = join(0, [factors.scaled_down() for factors in oriented])
  return LowRank(right, left, tuple(zip(own, ranks, strict=True)), columns)
