from pathlib import Path

from tanbr_jax.data import sources

SOURCE = b'''"""Module.

Second line.
"""
import os


def f():
  """Adds.

  >>> f()
  2
  >>> for i in range(1):
  ...   print(i)
  0

  More words.
  """
  return """not a docstring"""


def g(): """kept, for its line is code"""
'''


def test_docstrings_and_the_rest_part_a_source():
  assert sources.docstrings(SOURCE)[0] == "Module.\n\nSecond line."
  expected = (
    b"import os\n\n\ndef f():\n"
    b'  return """not a docstring"""\n\n\n'
    b'def g(): """kept, for its line is code"""\n'
  )
  assert sources.without_docstrings(SOURCE) == expected
  assert sources.docstrings(b"def (") == []
  assert sources.without_docstrings(b"def (") is None


def test_doctests_and_prose_part_a_docstring():
  docstring = sources.docstrings(SOURCE)[1]
  prose, doctests = sources.separate_doctests(docstring)
  assert prose == "Adds.\n\n\nMore words."
  assert doctests == (">>> f()\n2\n>>> for i in range(1):\n...   print(i)\n0")


def test_files_come_in_the_order_of_hashed_names(tmp_path):
  names = [f"{letter}.txt" for letter in "abcdefg"]
  for name in names:
    (tmp_path / name).write_text(name)
  (tmp_path / "skipped").mkdir()
  (tmp_path / "skipped" / "x.txt").write_text("x")
  (tmp_path / "other.bin").write_text("x")
  roots = [("root", tmp_path), ("absent", None), ("gone", tmp_path / "no")]
  found = sources.find_files(roots, (".txt",), skipped=frozenset({"skipped"}))
  expected = sorted((f"root/{name}" for name in names), key=sources.name_key)
  assert [name for name, _ in found] == expected
  assert dict(found)["root/a.txt"] == tmp_path / "a.txt"


def test_only_text_is_read_and_line_ends_are_unified(tmp_path):
  contents = {"a": b"x\r\ny\n", "b": b"x\0y", "c": b"\xff\xfe", "d": b""}
  for name, content in contents.items():
    (tmp_path / name).write_bytes(content)
  read = {name: sources.read_text(tmp_path / name) for name in contents}
  assert read == {"a": b"x\ny\n", "b": None, "c": None, "d": b""}
  assert sources.read_text(tmp_path / "absent") is None


def test_packages_are_located_without_import():
  assert sources.package_root("no_such_package_at_all") is None
  assert sources.package_root("unicodedata") is None
  assert sources.package_root("json") == Path(sources.stdlib_root(), "json")
