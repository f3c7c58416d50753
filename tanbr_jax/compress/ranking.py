"""From scores to the experts that are kept, and files of both.

A selection is a list with one array for each of L layers: the ids of the
experts that are kept, ascending. Letters: L layers, E experts, K experts per
token, M experts kept in a layer.
"""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tanbr_jax.moe.parameters import is_integer
from tanbr_jax.storage import atomic

Selection = list[np.ndarray]


def rank(scores: np.ndarray) -> np.ndarray:
  """Returns [L, E] ids, the best of each layer first, the first of equal ones.

  Raises:
    ValueError: if the scores are not [L, E] or one is NaN.
  """
  scores = np.asarray(scores, np.float64)
  if scores.ndim != 2 or np.isnan(scores).any():
    raise ValueError(
      f"scores must be [L, E] without NaN, got {scores.shape} with "
      f"{int(np.isnan(scores).sum())} NaN"
    )
  return np.argsort(-scores, axis=1, kind="stable")


def keep_local(scores: np.ndarray, num_kept: int) -> Selection:
  """The M best experts of every layer.

  Args:
    scores: [L, E].
    num_kept: M, in [1, E].

  Raises:
    ValueError: if M is out of range, or as `rank`.
  """
  order = rank(scores)
  _check_count("num_kept", num_kept, 1, order.shape[1])
  return [np.sort(row[:num_kept]) for row in order]


def keep_global(
  scores: np.ndarray, num_kept: int, *, at_least: int = 1
) -> Selection:
  """The best experts of all layers together: layers keep different numbers.

  Args:
    scores: [L, E], comparable between layers.
    num_kept: M on average: L M experts are kept.
    at_least: experts that every layer keeps, K for a model that is to run.

  Raises:
    ValueError: if a number is out of range, or as `rank`.
  """
  order = rank(scores)
  num_layers, num_experts = order.shape
  _check_count("num_kept", num_kept, 1, num_experts)
  _check_count("at_least", at_least, 1, num_kept)
  scores = np.asarray(scores, np.float64)
  # Every layer's own best come first, whatever they score elsewhere.
  is_kept = np.zeros(order.shape, bool)
  np.put_along_axis(is_kept, order[:, :at_least], True, axis=1)
  rest = np.where(is_kept, -np.inf, scores).reshape(-1)
  num_more = num_layers * (num_kept - at_least)
  is_kept.reshape(-1)[np.argsort(-rest, kind="stable")[:num_more]] = True
  return from_mask(is_kept)


def union(selections: Sequence[Selection]) -> Selection:
  """The experts of any selection, layer by layer.

  Raises:
    ValueError: if there is none, or they have different layers.
  """
  if len({len(one) for one in selections}) != 1:
    raise ValueError(
      "selections must be of the same layers, got "
      f"{[len(one) for one in selections]} layers"
    )
  return [
    np.unique(np.concatenate(layer)) for layer in zip(*selections, strict=True)
  ]


def to_mask(keep: Selection, num_experts: int) -> np.ndarray:
  """[L, E] bool of a selection."""
  mask = np.zeros((len(keep), num_experts), bool)
  for row, ids in zip(mask, keep, strict=True):
    row[np.asarray(ids)] = True
  return mask


def from_mask(mask: np.ndarray) -> Selection:
  """The selection of [L, E] bool."""
  return [np.flatnonzero(row) for row in mask]


def overlap(ours: Selection, theirs: Selection) -> np.ndarray:
  """[L] float64, the share of our experts that are theirs too."""
  return np.array(
    [
      np.isin(one, other).mean()
      for one, other in zip(ours, theirs, strict=True)
    ]
  )


def check_selection(
  keep: Any, *, num_layers: int, num_experts: int, num_selected: int
) -> Selection:
  """Returns a selection with ascending ids.

  Args:
    keep: [L, M], or one sequence of ids for each layer.
    num_layers: L.
    num_experts: E.
    num_selected: K; a layer with fewer experts cannot run.

  Raises:
    ValueError: if it is of another number of layers, or a layer's ids are not
      different integers in [0, E), or fewer than K.
  """
  try:
    layers = [np.asarray(ids) for ids in keep]
  except (TypeError, ValueError):
    raise ValueError(
      f"keep must be ids of experts for each layer, got {keep!r:.60}"
    ) from None
  if len(layers) != num_layers:
    raise ValueError(
      f"keep must have ids for each of L={num_layers} layers with experts, "
      f"got {len(layers)}: a selection of another model?"
    )
  for place, ids in enumerate(layers):
    is_integers = ids.ndim == 1 and ids.dtype.kind in "iu"
    if (
      not is_integers
      or len(np.unique(ids)) != len(ids)
      or (ids.size and not 0 <= ids.min() <= ids.max() < num_experts)
    ):
      raise ValueError(
        f"keep must be different experts in [0, {num_experts}) of each layer, "
        f"got {str(ids.tolist()):.60} in layer {place}"
      )
    if len(ids) < num_selected:
      raise ValueError(
        "keep must hold num_selected experts of each layer or more, got "
        f"{len(ids)} in layer {place}, num_selected={num_selected}"
      )
  return [np.sort(ids.astype(np.int64)) for ids in layers]


def write_rankings(
  path: str | os.PathLike[str],
  order: np.ndarray,
  *,
  layers: Sequence[int] | None = None,
) -> None:
  """Writes a full ranking as JSON lines, `{"0": [best, ..., worst]}`.

  Servers that prune while they load read it (vllm-ascend's `expert_list_file`,
  with a ratio as `expert_prune_ratio` beside it).

  Args:
    path: the file.
    order: [L, E], of `rank`.
    layers: the layers' numbers in the checkpoint, the model's `moe_layers`;
      None for 0, 1, ....

  Raises:
    ValueError: if it is no full ranking.
  """
  order = np.asarray(order)
  layers = range(len(order)) if layers is None else layers
  if order.ndim != 2 or len(layers) != len(order):
    raise ValueError(
      f"order must be [L, E] for L={len(layers)}, got {order.shape}"
    )
  _check_full(order, path="order")
  lines = [
    json.dumps({str(layer): row.tolist()}, separators=(",", ":"))
    for layer, row in zip(layers, order, strict=True)
  ]
  atomic.write_text(path, "\n".join(lines) + "\n")


def read_rankings(
  path: str | os.PathLike[str],
) -> tuple[np.ndarray, tuple[int, ...]]:
  """Reads what `write_rankings` writes.

  Returns:
    [L, E] ids, the best first, by ascending layer; and the layers' numbers.

  Raises:
    ValueError: if it is no such file.
  """
  found: dict[int, list[int]] = {}
  for number, line in enumerate(_read_text(path).splitlines(), start=1):
    if not line.strip():
      continue
    entry = _read_layers(line, f"{path}:{number}")
    if repeated := sorted(found.keys() & entry.keys()):
      raise ValueError(f"{path}:{number} ranks layer {repeated[0]} again")
    found |= entry
  if len({len(row) for row in found.values()}) != 1:
    raise ValueError(f"{path} must rank the same experts in every layer")
  layers = tuple(sorted(found))
  order = np.array([found[layer] for layer in layers])
  _check_full(order, path=str(path))
  return order, layers


def write_pruned(
  path: str | os.PathLike[str],
  keep: Selection,
  *,
  num_experts: int,
  layers: Sequence[int] | None = None,
) -> None:
  """Writes the experts that are not kept as JSON, `{"0": [pruned, ...]}`.

  The profile of servers that leave pruned experts' weights unread and map them
  to -1 (vLLM's `--moe-pruned-experts-profile`); the object's form is a
  reconstruction. Layers may keep different numbers.

  Args:
    path: the file.
    keep: what is kept.
    num_experts: E.
    layers: as for `write_rankings`.
  """
  layers = range(len(keep)) if layers is None else layers
  mask = to_mask(keep, num_experts)
  text = json.dumps(
    {
      str(layer): np.flatnonzero(~row).tolist()
      for layer, row in zip(layers, mask, strict=True)
    }
  )
  atomic.write_text(path, text + "\n")


def read_pruned(
  path: str | os.PathLike[str], *, num_experts: int
) -> tuple[Selection, tuple[int, ...]]:
  """Reads what `write_pruned` writes.

  Args:
    path: the file.
    num_experts: E.

  Returns:
    What is kept, by ascending layer; and the layers' numbers.

  Raises:
    ValueError: if it is no such file, or names an expert that is none.
  """
  found = _read_layers(_read_text(path), str(path))
  layers = tuple(sorted(found))
  keep = []
  for layer in layers:
    wrong = [e for e in found[layer] if not 0 <= e < num_experts]
    if wrong:
      raise ValueError(
        f"{path} must prune experts in [0, {num_experts}), got {wrong[0]} in "
        f"layer {layer}"
      )
    keep.append(np.setdiff1d(np.arange(num_experts), found[layer]))
  return keep, layers


def _read_text(path: str | os.PathLike[str]) -> str:
  try:
    return Path(path).read_text("utf-8")
  except (OSError, UnicodeDecodeError) as error:
    reason = " ".join(str(error).split())
    raise ValueError(f"{str(path)!r} cannot be read ({reason})") from None


def _read_layers(text: str, path: str) -> Mapping[int, list[int]]:
  """Lists of integers by layer, of a JSON object."""
  try:
    value = json.loads(text)
  except (json.JSONDecodeError, RecursionError) as error:
    raise ValueError(f"{path} is not JSON: {error}") from None
  if not isinstance(value, dict) or not all(
    layer.isdecimal()
    and isinstance(ids, list)
    and all(is_integer(one) for one in ids)
    for layer, ids in value.items()
  ):
    raise ValueError(
      f"{path} must map layers to lists of experts, got {text.strip()!r:.60}"
    )
  return {int(layer): ids for layer, ids in value.items()}


def _check_full(order: np.ndarray, *, path: str) -> None:
  wanted = np.arange(order.shape[1])
  for row in order:
    if not np.array_equal(np.sort(row), wanted):
      raise ValueError(
        f"{path} must rank each of {order.shape[1]} experts once, got "
        f"{str(row.tolist()):.60}"
      )


def _check_count(name: str, value: int, low: int, high: int) -> None:
  if not is_integer(value) or not low <= value <= high:
    raise ValueError(
      f"{name} must be an integer in [{low}, {high}], got {name}={value!r}"
    )
