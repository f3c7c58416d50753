import json

import numpy as np
import pytest

from tanbr_jax.storage import atomic


def _saved(path):
  arrays = {"a": np.arange(5, dtype=np.uint8), "b": np.ones((2, 3))}
  atomic.write_arrays(path, arrays, header={"key": [1, "x"]})
  return arrays


def test_arrays_and_header_come_back(tmp_path):
  arrays = _saved(tmp_path / "x.npz")
  loaded, header = atomic.read_arrays(tmp_path / "x.npz")
  assert header == {"key": [1, "x"]}
  assert loaded.keys() == arrays.keys()
  for name, array in arrays.items():
    np.testing.assert_array_equal(loaded[name], array)
  assert [path.name for path in tmp_path.iterdir()] == ["x.npz"]


def test_an_interrupted_write_leaves_the_old_file(tmp_path):
  path = tmp_path / "x"
  path.write_bytes(b"old")

  def write(file):
    file.write(b"half of the new")
    raise KeyboardInterrupt

  with pytest.raises(KeyboardInterrupt):
    atomic.write(path, write)
  assert path.read_bytes() == b"old"
  assert list(tmp_path.iterdir()) == [path]


def test_truncated_files_are_refused_at_every_length(tmp_path):
  path = tmp_path / "x.npz"
  _saved(path)
  whole = path.read_bytes()
  for size in range(0, len(whole), 7):
    path.write_bytes(whole[:size])
    with pytest.raises(ValueError, match="cannot be read"):
      atomic.read_arrays(path)


def test_foreign_files_are_refused(tmp_path):
  path = tmp_path / "x.npz"
  for content in (b"", b"not a zip", b"\x93NUMPY", b"PK\x03\x04" * 40):
    path.write_bytes(content)
    with pytest.raises(ValueError, match="cannot be read"):
      atomic.read_arrays(path)
  np.save(tmp_path / "y.npy", np.ones(3))
  with pytest.raises(ValueError, match="cannot be read"):
    atomic.read_arrays(tmp_path / "y.npy")
  with pytest.raises(FileNotFoundError):
    atomic.read_arrays(tmp_path / "absent.npz")


def test_no_flipped_bit_goes_unnoticed(tmp_path):
  """Of 300 drawn bits of a file of arrays, and of each bit of a JSON file."""
  arrays = _saved(tmp_path / "x.npz")
  whole = (tmp_path / "x.npz").read_bytes()
  rng = np.random.default_rng(0)
  refused = 0
  for place in rng.integers(0, 8 * len(whole), 300):
    (tmp_path / "x.npz").write_bytes(_flipped(whole, place))
    try:
      found, header = atomic.read_arrays(tmp_path / "x.npz")
    except ValueError as error:
      refused += 1
      assert "\n" not in str(error) and "x.npz" in str(error)
      continue
    # A date of the archive, or its padding: what is stored is the same.
    assert header == {"key": [1, "x"]} and found.keys() == arrays.keys()
    for name, array in arrays.items():
      np.testing.assert_array_equal(found[name], array)
  assert refused > 150
  value = {"a": [1, 2.5, None], "b": {"c": "text"}}
  atomic.write_json(tmp_path / "y.json", value)
  whole = (tmp_path / "y.json").read_bytes()
  for place in range(8 * len(whole)):
    (tmp_path / "y.json").write_bytes(_flipped(whole, place))
    try:
      assert atomic.read_json(tmp_path / "y.json", strict=True) == value
    except ValueError as error:
      assert "\n" not in str(error) and "y.json" in str(error)


def _flipped(content, place):
  content = bytearray(content)
  content[place // 8] ^= 1 << place % 8
  return bytes(content)


def test_a_json_file_is_cut_changed_or_no_object(tmp_path):
  path = tmp_path / "x.json"
  atomic.write_json(path, {"a": 1, "checksum": "mine"})
  assert atomic.read_json(path) == {"a": 1}
  assert list(json.loads(path.read_text())) == ["a", "checksum"]
  whole = path.read_text()
  path.write_text(whole.replace('"a": 1', '"a": 2'))
  with pytest.raises(ValueError, match="x.json does not hold what its checksu"):
    atomic.read_json(path)
  for text in ("", whole[:9], "[]", "3", '{"a": 1}', "[" * 100_000):
    path.write_text(text)
    with pytest.raises(ValueError, match="x.json"):
      atomic.read_json(path, strict=True)
  # Files of other makers have no checksum.
  path.write_text('{"a": 1}')
  assert atomic.read_json(path) == {"a": 1}
  path.unlink()
  path.mkdir()
  with pytest.raises(ValueError, match="x.json cannot be read: Is a directory"):
    atomic.read_json(path)
  with pytest.raises(FileNotFoundError):
    atomic.read_json(tmp_path / "absent.json")


def test_an_error_of_writing_names_the_file(tmp_path, monkeypatch):
  path = tmp_path / "x.json"

  def full(*unused):
    raise OSError(28, "No space left on device")

  monkeypatch.setattr(atomic.os, "fsync", full)
  with pytest.raises(OSError, match="No space left on device") as error:
    atomic.write_json(path, {})
  assert error.value.filename == str(path) and not list(tmp_path.iterdir())
  (tmp_path / "folder").mkdir()
  with pytest.raises(IsADirectoryError) as error:
    atomic.append_line(tmp_path / "folder", "line")
  assert error.value.filename == str(tmp_path / "folder")
