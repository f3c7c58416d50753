import os

import numpy as np
import pytest

from tanbr_jax import data
from tanbr_jax.data import folder


def _write(root, files):
  for name, content in files.items():
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def _many(task, byte, num=40):
  content = {i: bytes([byte]) * 20 + b"%02d" % i for i in range(num)}
  return {f"{task}/sub/{i}.txt": text for i, text in content.items()}


def test_a_folder_of_tasks_is_read(tmp_path):
  _write(tmp_path, {**_many("b", 98), **_many("a", 97)})
  _write(tmp_path, {"loose.txt": b"x", ".hidden/x": b"x"})
  _write(tmp_path, {"a/.hidden": b"H" * 99, "a/.git/x": b"H" * 99})
  os.mkfifo(tmp_path / "a" / "pipe")
  corpus = data.load_corpus(tmp_path, context=16)
  assert corpus.task_names == ("a", "b")
  assert corpus.messages == (
    "left out 1 file(s) beside the task folders",
    "task 'a': left out 1 special file(s)",
  )
  for task, byte in enumerate((97, 98)):
    texts = [corpus.splits[split][task] for split in corpus.splits]
    # Each document is 20 times its task's letter and its number.
    assert sum(int(np.sum(text == byte)) for text in texts) == 40 * 20
    assert sum(text.size for text in texts) == 40 * 22 + 40 - 3
    numbers = [{d[-2:] for d in t.tobytes().split(b"\n")} for t in texts]
    assert sum(map(len, numbers)) == len(set.union(*numbers)) == 40


def test_any_bytes_are_text(tmp_path):
  content = bytes(range(256)) * 2
  _write(tmp_path, {"a/x": content, "b/x": content[::-1]})
  tasks, _ = folder.load_folder(tmp_path, context=8)
  joined = np.concatenate(list(tasks["a"].values()))
  assert joined.tobytes() == content


def test_a_single_file_is_split_by_position_with_a_message(tmp_path):
  content = os.urandom(1000)
  _write(tmp_path, {"a/x": content, **_many("b", 98)})
  tasks, messages = folder.load_folder(tmp_path, context=16)
  assert tasks["a"]["train"].tobytes() == content[:800]
  assert tasks["a"]["validation"].tobytes() == content[800:900]
  assert tasks["a"]["test"].tobytes() == content[900:]
  assert len(messages) == 1 and "'a': split by position" in messages[0]


def test_one_huge_document_does_not_starve_training(tmp_path):
  # By documents the huge one could fill test or validation text alone.
  _write(tmp_path, {**_many("b", 98), "a/1": b"x" * 9000, "a/2": b"y" * 400})
  tasks, messages = folder.load_folder(tmp_path, context=16)
  assert tasks["a"]["train"].size >= 7000
  assert "split by position" in messages[0]


def test_links_to_folders_are_followed_and_loops_are_not(tmp_path):
  # Task a in plain files, and once more spread over linked folders.
  plain, linked, store = (tmp_path / n for n in ("plain", "linked", "store"))
  _write(plain, {**_many("a", 97), **_many("b", 98)})
  _write(linked, {**_many("b", 98), "a/notes": b"n", "a/none": b""})
  _write(store, {f"x/{i}.txt": b"a" * 20 + b"%02d" % i for i in range(20)})
  _write(store, {f"y/{i}.txt": b"a" * 20 + b"%02d" % i for i in range(20, 40)})
  for link, target in {
    "linked/a/books": "store",  # two folders, whose own links lead back
    "linked/a/more": "store/y",  # read already
    "linked/a/self": "linked/a",
    "linked/a/up": "linked",
    "store/x/up": "store",
    "store/y/across": "store/x",
    "linked/a/nowhere": "absent",
    "linked/a/one": "plain/a/sub/0.txt",  # a file that is read already
  }.items():
    (tmp_path / link).symlink_to(tmp_path / target)
  one, two = (data.load_corpus(p, context=16) for p in (plain, linked))
  assert two.messages == (
    "task 'a': left out 1 dangling link(s), 1 empty file(s), 2 folder linked "
    "again(s), 3 link loop(s), 1 repeated document(s)",
  )
  for task in (0, 1):
    parts = [
      b"\n".join(
        corpus.splits[split][task].tobytes() for split in corpus.splits
      )
      for corpus in (one, two)
    ]
    # The note sorts by its hash among the others, wherever that is.
    lines = [set(text.split(b"\n")) - {b"n"} for text in parts]
    assert lines[0] == lines[1] and len(lines[0]) == 40


def test_names_that_are_no_text_are_read(tmp_path):
  # Bytes that are no UTF-8, a line end, a quote, the longest name there is.
  names = [b"\xff\xfe", b"new\nline", b"'\"<b>$x^$&", b"n" * 255]
  root = os.fsencode(tmp_path)
  for task in names:
    os.mkdir(os.path.join(root, task))
    for i, name in enumerate(names):
      with open(os.path.join(root, task, name), "wb") as file:
        file.write(task[:2] * 50 + b"%d" % i)
  corpus = data.load_corpus(os.fsdecode(root), context=8)
  assert set(map(os.fsencode, corpus.task_names)) == set(names)
  assert all(message.isprintable() for message in corpus.messages)


def test_repeated_documents_are_dropped_with_a_message(tmp_path):
  _write(tmp_path, {**_many("a", 97), **_many("b", 98)})
  _write(tmp_path, {"a/z_copy": b"a" * 20 + b"00"})
  one = data.load_corpus(tmp_path, context=16)
  assert one.messages == ("task 'a': left out 1 repeated document(s)",)
  (tmp_path / "a" / "z_copy").unlink()
  assert data.load_corpus(tmp_path, context=16).fingerprint == one.fingerprint


@pytest.mark.parametrize(
  "files, expected",
  [
    ({}, r"at least 2 sub-folders.* got 0 in "),
    ({"loose.txt": b"x" * 999}, r"at least 2 sub-folders.* got 0 in "),
    ({"a/x": b"x" * 999}, r"at least 2 sub-folders.* got 1 in "),
    ({"a/x": b"x" * 999, "b/.x": b"y"}, r"task folder '.*b' holds no text"),
    ({"a/x": b"x" * 999, "b/x": b""}, r"task folder '.*b' holds no text"),
    (
      {"a/x": b"x" * 999, "b/x": b"y" * 169},
      # 169 bytes: 135 for training, 17 and 17; a context of 17 needs 18.
      r"task 'b' needs at least context \+ 1 = 18 bytes in each split, got "
      r"17 in validation of 169 in all",
    ),
  ],
)
def test_bad_folders_are_errors_of_one_line(tmp_path, files, expected):
  _write(tmp_path, files)
  with pytest.raises(ValueError, match=expected) as error:
    data.load_corpus(tmp_path, context=17)
  assert "\n" not in str(error.value)


def test_a_missing_path_is_an_error(tmp_path):
  for path in (tmp_path / "absent", __file__):
    with pytest.raises(ValueError, match="must be a folder, got"):
      data.load_corpus(path)
