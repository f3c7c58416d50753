"""Files that are either whole or absent, and that tell if they were damaged.

A file is written under a temporary name in its own folder, flushed to disk and
renamed: the rename is atomic, so a reader sees the old file or the new one.
JSON objects and arrays carry a checksum of their content, which is compared
when they are read: a file that was cut, or in which a bit flipped, is refused
in one line that names it. An OSError names the file that could not be written.
"""

import contextlib
import hashlib
import json
import math
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np

CHECKSUM, _HEADER = "checksum", "header"


def write(
  path: str | os.PathLike[str], write_to: Callable[[IO[bytes]], None]
) -> None:
  """Replaces the file at `path` by what `write_to` writes, atomically.

  Args:
    path: the file; its folder is made if need be.
    write_to: called with a binary file object. If it raises, the old file
      stays and nothing else is left.

  Raises:
    OSError: the file cannot be written; names it.
  """
  path = Path(path)
  temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
  with naming(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
      with open(temporary, "wb") as file:
        write_to(file)
        file.flush()
        os.fsync(file.fileno())
      os.replace(temporary, path)
    except BaseException:
      with contextlib.suppress(OSError):
        temporary.unlink()
      raise


def append_line(path: str | os.PathLike[str], line: str) -> None:
  """Appends a line of UTF-8, which may be torn if the process dies.

  Raises:
    OSError: the file cannot be written; names it.
  """
  with naming(path), open(path, "a", encoding="utf-8") as file:
    file.write(line + "\n")


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
      is not finite becomes null: NaN is not JSON. A mapping gets a checksum,
      see `sealed`.
  """
  value = sealed(value) if isinstance(value, Mapping) else jsonable(value)
  write_text(path, json.dumps(value, indent=2) + "\n")


def read_json(path: str | os.PathLike[str], *, strict: bool = False) -> Any:
  """Reads a JSON file and compares its checksum, which is left out.

  Args:
    path: the file.
    strict: whether anything but an object with a checksum is refused.

  Raises:
    FileNotFoundError: there is no such file.
    ValueError: the file is not JSON, or was damaged or changed.
  """
  try:
    value = json.loads(Path(path).read_text(encoding="utf-8"))
  except FileNotFoundError:
    raise
  except OSError as error:
    raise ValueError(f"{path} cannot be read: {error.strerror}") from None
  # Deep nesting, which damage does not make, ends in a RecursionError.
  except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
    raise ValueError(f"{path} is not JSON: {error}") from error
  if not strict and not (isinstance(value, dict) and CHECKSUM in value):
    return value
  if not is_sealed(value):
    raise ValueError(
      f"{path} does not hold what its checksum says: it was damaged or changed"
    )
  del value[CHECKSUM]
  return value


def sealed(value: Mapping[str, Any]) -> dict[str, Any]:
  """`value` as plain JSON types, with a checksum as its last entry."""
  plain = {name: entry for name, entry in value.items() if name != CHECKSUM}
  plain = jsonable(plain)
  return {**plain, CHECKSUM: _digest(plain, {})}


def is_sealed(value: Any) -> bool:
  """Whether `value` is what `sealed` made, read back."""
  return isinstance(value, dict) and value == sealed(value)


def write_arrays(
  path: str | os.PathLike[str],
  arrays: Mapping[str, np.ndarray],
  *,
  header: Mapping[str, Any] | None = None,
) -> None:
  """Replaces the file at `path` by an uncompressed npz, atomically.

  Args:
    path: the file.
    arrays: name -> array; no name may be "header".
    header: what JSON can hold. It is stored, with a checksum of itself and of
      the arrays, as the array "header".
  """
  arrays = {name: np.asarray(array) for name, array in arrays.items()}
  header = jsonable(header or {})
  about = json.dumps({**header, CHECKSUM: _digest(header, arrays)})
  stored = np.frombuffer(about.encode(), np.uint8)
  write(path, lambda file: np.savez(file, **{_HEADER: stored}, **arrays))


def read_arrays(
  path: str | os.PathLike[str], *, strict: bool = True
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
  """Reads what `write_arrays` wrote and compares the checksum.

  Args:
    path: the file.
    strict: whether a file without a header is refused.

  Returns:
    A pair (arrays, header).

  Raises:
    FileNotFoundError: there is no such file.
    ValueError: the file was damaged or changed.
  """
  try:
    with open(path, "rb") as file, np.load(file, allow_pickle=False) as archive:
      arrays = {name: archive[name] for name in archive.files}
    if not strict and _HEADER not in arrays:
      return arrays, {}
    header = json.loads(arrays.pop(_HEADER).tobytes())
    checksum = header.pop(CHECKSUM)
  except FileNotFoundError:
    raise
  # Damaged bytes make NumPy, zipfile and json raise nearly anything.
  except Exception as error:
    reason = " ".join(f"{error!s} {type(error).__name__}".split())
    raise ValueError(f"{str(path)!r} cannot be read ({reason})") from None
  if checksum != _digest(header, arrays):
    raise ValueError(f"{str(path)!r} cannot be read (its checksum differs)")
  return arrays, header


def digest_arrays(arrays: Mapping[str, np.ndarray]) -> str:
  """A checksum of the names and the values of arrays."""
  return _digest({}, arrays)


def digest_files(folder: str | os.PathLike[str]) -> str:
  """A checksum of the names and contents of all files below a folder."""
  digest = hashlib.sha256()
  for path in sorted(Path(folder).rglob("*")):
    if path.is_file():
      name = path.relative_to(folder).as_posix()
      digest.update(json.dumps([name, path.stat().st_size]).encode())
      with open(path, "rb") as file:
        digest.update(hashlib.file_digest(file, "sha256").digest())
  return digest.hexdigest()[:16]


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


@contextlib.contextmanager
def naming(path: str | os.PathLike[str]) -> Iterator[None]:
  """Lets an OSError name `path`: a full disk's own names no file."""
  try:
    yield
  except OSError as error:
    if error.filename is not None and os.fspath(error.filename) == str(path):
      raise
    reason = error.strerror or str(error)
    raise OSError(error.errno, reason, str(path)) from error


def _digest(header: Any, arrays: Mapping[str, np.ndarray]) -> str:
  digest = hashlib.sha256(json.dumps(header).encode())
  for name in sorted(arrays):
    array = np.ascontiguousarray(arrays[name])
    # bfloat16 and its kin come back from an npz as bytes without a name.
    kind = f"V{array.itemsize}" if array.dtype.kind == "V" else array.dtype.str
    shape = np.shape(arrays[name])
    digest.update(json.dumps([name, kind, shape]).encode())
    digest.update(array.tobytes())
  return digest.hexdigest()[:16]
