"""LoRA adapters as PEFT writes them: adapter_config.json and one file beside.

What an adapter changes is told by its tensors' names: a product for a module's
weight, and whole tensors for biases and `modules_to_save`. Letters: R rank, M
rows and N columns of a tensor.
"""

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tanbr_jax.models.decoder_config import DTYPES
from tanbr_jax.models.huggingface import folder as folders
from tanbr_jax.models.huggingface import mapping, tensor_file
from tanbr_jax.models.huggingface.reading import Checkpoint
from tanbr_jax.models.huggingface.tensor_file import Entry, Reader

CONFIG = "adapter_config.json"
FILE = "adapter_model.safetensors"
_PREFIX = "base_model.model."
# Keys that tell nothing which the tensors do not, or matter in training alone.
_HARMLESS = re.compile(
  r"auto_mapping|base_model_name_or_path|bias|exclude_modules|inference_mode|"
  r"layers_(pattern|to_transform)|lora_(bias|dropout)|megatron_core|"
  r"modules_to_save|peft_(type|version)|qalora_group_size|revision|"
  r"runtime_config|target_modules|task_type|ensure_weight_tying|"
  # It is for layers that keep their matrix the other way: none here does.
  r"fan_in_fan_out|"
  # Of ways to start that `init_lora_weights` names.
  r"(corda|eva|loftq|lora_ga)_config|velora_config"
)
_KNOWN = re.compile(
  r"r|lora_alpha|use_rslora|(rank|alpha)_pattern|init_lora_weights"
)
_FACTORS = ("A.weight", "B.weight", "B.bias", "embedding_A", "embedding_B")
# Ways to start that leave the base's weights as they are.
_STARTS = (True, False, "gaussian", "eva", "orthogonal")


class Factors(NamedTuple):
  """A tensor's change, `scale * up @ down`.

  Attributes:
    up: [M, R]; None for a vector, whose change is `scale * down[0]`.
    down: [R, N].
    scale: a number.
  """

  up: np.ndarray | None
  down: np.ndarray
  scale: float

  @property
  def rank(self) -> int:
    """R."""
    return self.down.shape[0]

  def transposed(self) -> "Factors":
    """The factors of the transposed tensor."""
    return Factors(self.down.T, self.up.T, self.scale)

  def scaled_down(self) -> np.ndarray:
    """[R, N] float32, with the scale."""
    return self.down.astype(np.float32) * np.float32(self.scale)

  def norm(self) -> float:
    """The Frobenius norm of the change, without making it."""
    down = self.down.astype(np.float64)
    squares = down @ down.T
    if self.up is not None:
      up = self.up.astype(np.float64)
      squares = squares * (up.T @ up)
    return abs(self.scale) * math.sqrt(max(float(np.sum(squares)), 0.0))


class Changes(NamedTuple):
  """What one expert has that the base has not, by the base's keys.

  Attributes:
    source: its folder.
    values: whole tensors.
    updates: what is added to tensors.
  """

  source: str
  values: dict[str, np.ndarray]
  updates: dict[str, Factors]


def read(folder: Path, base: Checkpoint, reader: Reader) -> Changes:
  """Reads an adapter of the base.

  Args:
    folder: of the adapter.
    base: what it is for.
    reader: maps its file.

  Raises:
    ValueError: in one line, if the adapter is more than LoRA, or does not fit
      the base.
  """
  config = folders.read_json(folder / CONFIG)
  _check_config(str(folder / CONFIG), config)
  path = folder / FILE
  if not path.is_file():
    raise ValueError(f"there is no {FILE} in {str(folder)!r}")
  shapes = mapping.tensor_shapes(
    base.pieces, {name: leaf.shape for name, leaf in base.shapes.items()}
  )
  entries = tensor_file.read_entries(path)
  changes = Changes(str(path), {}, {})
  for name, entry in entries.items():
    key, module, kind = _parse(name, entry, shapes, base.model.config.tied)
    other = _other(name, kind, entries)
    if kind is None:
      _check_shape(name, entry, shapes[key])
      changes.values[key] = reader.view(entry)
    elif kind == "B.bias":
      _check_shape(name, entry, shapes[key])
      scale = _scale(config, module, str(path))
      row = reader.view(entry)[None]
      changes.updates[key] = Factors(None, row, scale.value)
    elif kind in ("A.weight", "embedding_A"):
      scale = _scale(config, module, str(path))
      rows, columns = shapes[key]
      # Those of an embedding are of the transposed table.
      is_table = kind == "embedding_A"
      if is_table:
        rows, columns = columns, rows
      _check_shape(name, entry, (scale.rank, columns))
      _check_shape(other, entries[other], (rows, scale.rank))
      factors = Factors(
        reader.view(entries[other]), reader.view(entry), scale.value
      )
      changes.updates[key] = factors.transposed() if is_table else factors
  return changes


def _parse(
  name: str, entry: Entry, shapes: Mapping[str, tuple[int, ...]], is_tied: bool
) -> tuple[str, str, str | None]:
  """The base's key that a tensor is for, its module, and its kind of factor.

  The kind is None for a whole tensor.
  """
  path = str(entry.file)
  if entry.dtype.name not in (*DTYPES, "float64"):
    raise ValueError(
      f"{path!r}: {name!r} must be of a type in {DTYPES}, got "
      f"{entry.dtype.name}"
    )
  # Modules that the adapter wraps keep what they wrap under these names.
  plain = re.sub(r"\.(base_layer|modules_to_save)\.", ".", name)
  plain = plain.removeprefix(_PREFIX)
  module, found, kind = plain.rpartition(".lora_")
  if found:
    if kind not in _FACTORS:
      raise ValueError(f"{path!r}: {name!r} is not understood: not plain LoRA")
    key = f"{module}.{'bias' if kind == 'B.bias' else 'weight'}"
  else:
    module, kind, key = plain.rpartition(".")[0], None, plain
  is_shared = module in ("model.embed_tokens", "lm_head")
  if is_tied and is_shared and (kind is not None or key not in shapes):
    raise ValueError(
      f"{path!r}: {name!r} cannot be merged, as the base's embedding and head "
      "are one tensor"
    )
  if key not in shapes:
    raise ValueError(
      f"{path!r} holds {name!r} of shape {entry.shape} for {key!r}, which the "
      "base does not have"
    )
  is_product = kind not in (None, "B.bias")
  if is_product and len(shapes[key]) != 2:
    raise ValueError(
      f"{path!r}: {name!r} must be for a matrix, got {key!r} of shape "
      f"{shapes[key]}"
    )
  return key, module, kind


def _other(
  name: str, kind: str | None, entries: Mapping[str, Entry]
) -> str | None:
  """The name of the factor that goes with one."""
  if kind is None or kind == "B.bias":
    return None
  letter = "B" if "A" in kind else "A"
  other = name[: -len(kind)] + re.sub("[AB]", letter, kind)
  if other not in entries:
    raise ValueError(
      f"{str(entries[name].file)!r} holds {name!r} and lacks {other!r}"
    )
  return other


def _check_shape(name: str, entry: Entry, wanted: tuple[int, ...]) -> None:
  if entry.shape != wanted:
    raise ValueError(
      f"{str(entry.file)!r}: {name!r} must be {wanted}, got {entry.shape}"
    )


def _check_config(source: str, config: Mapping[str, Any]) -> None:
  """Refuses what is more than LoRA, by its name."""
  kind = config.get("peft_type")
  if kind != "LORA":
    raise ValueError(f"{source!r}: peft_type must be 'LORA', got {kind!r}")
  start = config.get("init_lora_weights", True)
  if start not in _STARTS:
    raise ValueError(
      f"{source!r}: init_lora_weights must be one of {list(_STARTS)}, as "
      f"others change the base's weights, got {start!r}"
    )
  for name, value in config.items():
    is_known = _HARMLESS.fullmatch(name) or _KNOWN.fullmatch(name)
    if not is_known and value not in (None, False, [], {}, ""):
      raise ValueError(
        f"{source!r}: {name}={value!r} is not understood: not plain LoRA"
      )


class _Scale(NamedTuple):
  rank: int
  value: float


def _scale(config: Mapping[str, Any], module: str, path: str) -> _Scale:
  """The rank of a module's product, and what it is multiplied with."""
  rank = _of_module(config, "rank_pattern", module, config.get("r"))
  alpha = _of_module(config, "alpha_pattern", module, config.get("lora_alpha"))
  if type(rank) is not int or rank < 1 or type(alpha) not in (int, float):
    raise ValueError(
      f"{path!r}: r must be a positive integer and lora_alpha a number, got "
      f"r={rank!r}, lora_alpha={alpha!r} for {module!r}"
    )
  root = math.sqrt(rank) if config.get("use_rslora") else rank
  return _Scale(rank, alpha / root)


def _of_module(
  config: Mapping[str, Any], name: str, module: str, default: Any
) -> Any:
  """The value of the first pattern that a module's name ends with."""
  for pattern, value in (config.get(name) or {}).items():
    if re.match(rf"(.*\.)?({pattern})$", module):
      return value
  return default
