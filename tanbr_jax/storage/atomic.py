"""Files that are either whole or absent, whenever the process dies.

A file is written under a temporary name in its own folder, flushed to disk and
renamed: the rename is atomic, so a reader sees the old file or the new one.
"""

import contextlib
import json
import math
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np


def write(
  path: str | os.PathLike[str], write_to: Callable[[IO[bytes]], None]
) -> None:
  """Replaces the file at `path` by what `write_to` writes, atomically.

  Args:
    path: the file; its folder is made if need be.
    write_to: called with a binary file object. If it raises, the old file
      stays and nothing else is left.
  """
  path = Path(path)
  path.parent.mkdir(parents=True, exist_ok=True)
  temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
  try:
    with open(temporary, "wb") as file:
      write_to(file)
      file.flush()
      os.fsync(file.fileno())
    os.replace(temporary, path)
  except BaseException:
    temporary.unlink(missing_ok=True)
    raise


@contextlib.contextmanager
def new_folder(path: str | os.PathLike[str]) -> Iterator[Path]:
  """Makes a folder that appears whole, with all its files, or not at all.

  Args:
    path: the folder, which must not exist or be empty.

  Yields:
    A temporary folder beside it, which becomes the folder at the end. If the
    body raises, it is removed.

  Raises:
    ValueError: if there is something at the path.
  """
  path = Path(path)
  if path.exists() and (not path.is_dir() or any(path.iterdir())):
    raise ValueError(f"{str(path)!r} must be a new or an empty folder")
  path.parent.mkdir(parents=True, exist_ok=True)
  temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
  temporary.mkdir()
  try:
    yield temporary
    os.replace(temporary, path)
  except BaseException:
    shutil.rmtree(temporary, ignore_errors=True)
    raise


def write_bytes(path: str | os.PathLike[str], content: bytes) -> None:
  """Replaces the file at `path` by `content`, atomically."""
  write(path, lambda file: file.write(content))


def write_text(path: str | os.PathLike[str], text: str) -> None:
  """Replaces the file at `path` by `text` in UTF-8, atomically."""
  write_bytes(path, text.encode("utf-8"))


def write_json(path: str | os.PathLike[str], value: Any) -> None:
  """Replaces the file at `path` by `value` as indented JSON, atomically.

  Args:
    path: the file.
    value: what `json` accepts, NumPy scalars and arrays besides. A float that
      is not finite becomes null: NaN is not JSON.
  """
  write_text(path, json.dumps(jsonable(value), indent=2) + "\n")


def write_arrays(
  path: str | os.PathLike[str], arrays: Mapping[str, np.ndarray]
) -> None:
  """Replaces the file at `path` by an uncompressed npz, atomically."""
  write(path, lambda file: np.savez(file, **arrays))


def jsonable(value: Any) -> Any:
  """`value` with mappings, sequences and arrays as plain JSON types."""
  if isinstance(value, Mapping):
    return {str(name): jsonable(entry) for name, entry in value.items()}
  if isinstance(value, (list, tuple)):
    return [jsonable(entry) for entry in value]
  if hasattr(value, "tolist"):
    return jsonable(value.tolist())
  if isinstance(value, float):
    return value if math.isfinite(value) else None
  if value is None or isinstance(value, (bool, int, str)):
    return value
  return str(value)
