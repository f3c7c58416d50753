import numpy as np
import pytest

from tanbr_jax.storage import atomic, cache


def _saved(path):
  arrays = {"a": np.arange(5, dtype=np.uint8), "b": np.ones((2, 3))}
  cache.save_arrays(path, arrays, {"key": [1, "x"]})
  return arrays


def test_arrays_and_header_come_back(tmp_path):
  arrays = _saved(tmp_path / "x.npz")
  loaded, header = cache.load_arrays(tmp_path / "x.npz")
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
      cache.load_arrays(path)


def test_foreign_files_are_refused(tmp_path):
  path = tmp_path / "x.npz"
  for content in (b"", b"not a zip", b"\x93NUMPY", b"PK\x03\x04" * 40):
    path.write_bytes(content)
    with pytest.raises(ValueError, match="cannot be read"):
      cache.load_arrays(path)
  np.save(tmp_path / "y.npy", np.ones(3))
  with pytest.raises(ValueError, match="cannot be read"):
    cache.load_arrays(tmp_path / "y.npy")
  with pytest.raises(FileNotFoundError):
    cache.load_arrays(tmp_path / "absent.npz")


def test_cache_folder_follows_argument_then_variable(tmp_path, monkeypatch):
  monkeypatch.setenv(cache.ENVIRONMENT_VARIABLE, str(tmp_path / "variable"))
  assert cache.cache_dir(tmp_path / "a" / "b") == tmp_path / "a" / "b"
  assert cache.cache_dir() == tmp_path / "variable"
  monkeypatch.delenv(cache.ENVIRONMENT_VARIABLE)
  monkeypatch.setenv("HOME", str(tmp_path))
  assert cache.cache_dir() == tmp_path / ".cache" / "tanbr_jax"
  assert cache.cache_dir().is_dir()


def test_unwritable_cache_folder_is_an_error_of_one_line(tmp_path):
  # Below a file no folder can be made, whoever runs this test.
  (tmp_path / "file").write_text("x")
  bad = tmp_path / "file" / "cache"
  with pytest.raises(ValueError, match="must be writable") as error:
    cache.cache_dir(bad)
  assert str(bad) in str(error.value)
  assert "\n" not in str(error.value)
