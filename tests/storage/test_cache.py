import logging

import pytest

from tanbr_jax.storage import cache


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


def test_an_entry_is_made_once_and_anew_if_damaged(tmp_path, caplog):
  path, made = tmp_path / "entry", []

  def read():
    if (text := path.read_text()) != "whole":
      raise ValueError(f"{path} holds {text!r}")
    return text

  def make():
    assert (tmp_path / "entry.lock").exists()
    made.append(path.write_text("whole"))
    return "made"

  fetch = lambda: cache.fetch(path, read=read, make=make)  # noqa: E731
  assert fetch() == "made" and fetch() == "whole" and len(made) == 1
  path.write_text("half")
  with caplog.at_level(logging.WARNING):
    assert fetch() == "made"
  assert caplog.messages == [f"{path} holds 'half': it is made anew"]
  assert [x.name for x in tmp_path.iterdir()] == ["entry"]
