"""Files of the safetensors format, read by memory map, written as a stream.

A file is the length of its header (8 bytes, little endian), the header (JSON:
name -> dtype, shape, begin and end of the bytes), and the tensors' bytes.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import IO, NamedTuple

import ml_dtypes
import numpy as np

DTYPES: Mapping[str, np.dtype] = {
  "F64": np.dtype(np.float64),
  "F32": np.dtype(np.float32),
  "F16": np.dtype(np.float16),
  "BF16": np.dtype(ml_dtypes.bfloat16),
  "I64": np.dtype(np.int64),
  "I32": np.dtype(np.int32),
  "I16": np.dtype(np.int16),
  "I8": np.dtype(np.int8),
  "U8": np.dtype(np.uint8),
  "BOOL": np.dtype(np.bool_),
  "F8_E4M3": np.dtype(ml_dtypes.float8_e4m3fn),
  "F8_E5M2": np.dtype(ml_dtypes.float8_e5m2),
}
_NAMES = {dtype: name for name, dtype in DTYPES.items()}
_METADATA = "__metadata__"
_ALIGNMENT = 8


class Entry(NamedTuple):
  """A tensor's place.

  Attributes:
    file: the path of its file.
    dtype: its NumPy type.
    shape: its shape.
    begin: offset of its first byte in the file.
    read: makes the tensor, where the file's bytes are not those of the type;
      None where they are.
  """

  file: Path
  dtype: np.dtype
  shape: tuple[int, ...]
  begin: int
  read: Callable[[], np.ndarray] | None = None

  @property
  def nbytes(self) -> int:
    """Its size in bytes."""
    return int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize


def read_entries(path: Path) -> dict[str, Entry]:
  """Returns the tensors of a file by name; reads its header alone.

  Args:
    path: the file.

  Raises:
    ValueError: if the file is cut, its header is damaged, or a tensor has an
      unknown type.
  """
  size = path.stat().st_size
  with open(path, "rb") as file:
    length = int.from_bytes(file.read(8), "little")
    if size < 8 or length > size - 8:
      raise ValueError(
        f"{str(path)!r} is cut or corrupt: {size} bytes cannot hold a header "
        f"of {length} bytes"
      )
    text = file.read(length)
  try:
    header = json.loads(text)
    header.pop(_METADATA, None)
    found = {
      name: _entry(path, name, value, 8 + length)
      for name, value in header.items()
    }
  except (ValueError, KeyError, TypeError, AttributeError) as error:
    raise ValueError(
      f"{str(path)!r} is cut or corrupt: its header is damaged ({error})"
    ) from None
  # One tensor after the other, up to the end of the file.
  end = 8 + length
  for name, entry in sorted(found.items(), key=lambda one: one[1].begin):
    if entry.begin != end:
      raise ValueError(
        f"{str(path)!r} is cut or corrupt: {name!r} begins at byte "
        f"{entry.begin}, not at {end}"
      )
    end += entry.nbytes
  if end != size:
    raise ValueError(
      f"{str(path)!r} is cut or corrupt: its tensors end at byte {end}, the "
      f"file has {size}"
    )
  return found


def _entry(path: Path, name: str, value: dict, start: int) -> Entry:
  if value["dtype"] not in DTYPES:
    raise ValueError(f"{name} has the unknown type {value['dtype']!r}")
  begin, end = value["data_offsets"]
  shape = tuple(int(size) for size in value["shape"])
  entry = Entry(path, DTYPES[value["dtype"]], shape, start + begin)
  if begin < 0 or end - begin != entry.nbytes:
    raise ValueError(
      f"{name} of shape {shape} has {end - begin} bytes, not {entry.nbytes}"
    )
  return entry


class Reader:
  """Maps the files of entries into memory, each once."""

  def __init__(self) -> None:
    self._maps: dict[Path, np.ndarray] = {}

  def view(self, entry: Entry) -> np.ndarray:
    """A tensor as an array that shares the mapped file's memory if it can."""
    if entry.read is not None:
      return entry.read()
    if entry.file not in self._maps:
      self._maps[entry.file] = np.memmap(entry.file, np.uint8, mode="r")
    whole = self._maps[entry.file][entry.begin : entry.begin + entry.nbytes]
    return np.ndarray(entry.shape, entry.dtype, whole)


class Tensor(NamedTuple):
  """A tensor that is to be written.

  Attributes:
    name: in the file.
    dtype: its NumPy type.
    shape: its shape.
  """

  name: str
  dtype: np.dtype
  shape: tuple[int, ...]

  @property
  def nbytes(self) -> int:
    """Its size in bytes."""
    return int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize


def write(
  file: IO[bytes], tensors: list[Tensor], arrays: Iterable[np.ndarray]
) -> None:
  """Writes a file, one tensor in memory at a time.

  Args:
    file: open for writing.
    tensors: in the order of the file.
    arrays: their values in the same order, asked for one after the other.
  """
  header, begin = {_METADATA: {"format": "pt"}}, 0
  for tensor in tensors:
    end = begin + tensor.nbytes
    header[tensor.name] = {
      "dtype": _NAMES[tensor.dtype],
      "shape": list(tensor.shape),
      "data_offsets": [begin, end],
    }
    begin = end
  text = json.dumps(header, separators=(",", ":")).encode()
  text += b" " * (-len(text) % _ALIGNMENT)
  file.write(len(text).to_bytes(8, "little") + text)
  for (name, dtype, shape), array in zip(tensors, arrays, strict=True):
    if array.shape != shape or array.dtype != dtype:
      raise ValueError(
        f"{name} must be {dtype}{shape}, got {array.dtype}{array.shape}"
      )
    file.write(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)


def name_of(dtype: np.dtype) -> str:
  """The format's name of a type in `DTYPES`."""
  return _NAMES[dtype]
