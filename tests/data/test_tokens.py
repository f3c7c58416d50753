"""Tokens of tasks, by a tokenizer of letters whose ids are known."""

import json
from typing import NamedTuple

import numpy as np
import pytest

from tanbr_jax import data
from tanbr_jax.data import corpus as corpora

LENGTH = 6  # a context of 5
START, UPPER = 1, 2  # special tokens: at the start of a text, a capital letter


class Encoding(NamedTuple):
  ids: list[int]
  offsets: list[tuple[int, int]]


class Letters:
  """One token a letter, two for a capital one; counts what it encodes."""

  def __init__(self):
    self.num_encoded = 0

  def no_truncation(self):
    pass

  no_padding = no_truncation

  def to_str(self):
    return "letters"

  def id_to_token(self, index):
    return chr(index)

  def encode_batch(self, texts, *, add_special_tokens):
    self.num_encoded += len(texts)
    return [self._encode(text, add_special_tokens) for text in texts]

  def _encode(self, text, is_marked):
    found = [(START, (0, 0))] if is_marked else []
    for place, letter in enumerate(text):
      span = place, place + 1
      if letter.isupper():
        found.append((UPPER, span))
      found.append((ord(letter.lower()), span))
    return Encoding(*map(list, zip(*found, strict=True)))


def write(folder, **files):
  folder.mkdir(exist_ok=True)
  for name, lines in files.items():
    text = "\n".join(x if isinstance(x, str) else json.dumps(x) for x in lines)
    (folder / f"{name}.jsonl").write_text(text, encoding="utf-8")
  return folder


def load(folder, tokenizer=None, **options):
  given = {"vocab_size": 128, "min_windows": {"test": 1}, **options}
  return data.load_tokens(
    folder,
    tokenizer or Letters(),
    context=LENGTH - 1,
    cache_dir=folder.parent / "cache",
    **given,
  )


TEXTS = [{"text": f"text {i:03}"} for i in range(40)]


def examples(prompt, completion, count=40):
  """Some that differ in a number at the front of the prompt alone."""
  return [
    {"prompt": f"{i:02}{prompt}", "completion": completion}
    for i in range(count)
  ]


def tokens(text):
  return [ord(letter) for letter in text]


def unscored(*symbols):
  """Marks of ids and letters; "n" stays, for any digit."""
  return [
    s if s == "n" else -1 - (s if isinstance(s, int) else ord(s))
    for s in symbols
  ]


@pytest.mark.parametrize(
  "prompt, completion, row",
  [
    # "^012b" is read, and a token of padding follows.
    ("", "b", [*unscored(START, "n", "n"), ord("b"), -1, -1]),
    ("a", "bc", [*unscored(START, "n", "n", "a"), *tokens("bc")]),
    # Too long: the prompt loses its front.
    ("abcd", "xy", [*unscored("a", "b", "c", "d"), *tokens("xy")]),
    # Too long without a prompt: the first token that is scored stays.
    ("q", "abcdefgh", [*unscored("q"), *tokens("abcde")]),
    # A capital letter is two tokens of the completion.
    ("", "Bc", [*unscored(START, "n", "n"), UPPER, *tokens("bc")]),
  ],
)
def test_an_example_is_a_row_of_which_the_completion_is_scored(
  tmp_path, prompt, completion, row
):
  folder = write(tmp_path / "t", a=examples(prompt, completion), b=TEXTS)
  corpus = load(folder)
  assert corpus.stride == LENGTH and corpus.task_names == ("a", "b")
  rows = np.concatenate([corpus.splits[s][0] for s in ("validation", "test")])
  rows = rows.reshape(-1, LENGTH)
  assert rows.dtype == np.int32 and len(rows) == 40
  for place, expected in enumerate(row):
    found = set(rows[:, place].tolist())
    if isinstance(expected, int):
      assert found == {expected}
    else:
      assert found <= {-1 - ord(digit) for digit in "0123456789"}
  # The largest part is served, and no text is trained on.
  assert len(corpus.splits["test"][0]) == 32 * LENGTH
  assert all(text.size == 0 for text in corpus.splits["train"])


def test_text_runs_on(tmp_path):
  folder = write(tmp_path / "t", a=TEXTS, b=[*TEXTS, {"text": ""}, TEXTS[0]])
  corpus = load(folder)
  assert corpus.messages == (
    "task 'b': left out 1 empty line(s), 1 repeated line(s)",
  )
  assert corpus.stride == 1
  for text in corpus.splits["test"]:
    assert text.dtype == np.uint32
    lines = bytes(text.astype(np.uint8)).decode().split("\n")
    assert len(lines) == 32 and set(lines) < {one["text"] for one in TEXTS}
    # What is left out leaves no trace: both tasks have the same lines.
    np.testing.assert_array_equal(text, corpus.splits["test"][0])


def test_folders_and_files_are_tasks_and_bytes_that_are_no_text_are_marked(
  tmp_path,
):
  folder = write(tmp_path / "t", b=TEXTS)
  (folder / "a").mkdir()
  for i in range(40):
    (folder / "a" / f"{i}").write_bytes(b"text\xff %d" % i)
  (folder / "notes.txt").write_text("beside")
  corpus = load(folder, vocab_size=0xFFFD + 1)
  assert corpus.task_names == ("a", "b")
  assert corpus.messages == ("left out 1 file(s) beside the tasks",)
  parts = [corpus.splits[split][0] for split in ("validation", "test")]
  assert (np.concatenate(parts) == 0xFFFD).sum() == 40


def test_tokens_are_made_once(tmp_path):
  folder = write(tmp_path / "t", a=examples("a", "b"), b=TEXTS)
  tokenizer = Letters()
  first, count = load(folder, tokenizer), tokenizer.num_encoded
  again = load(folder, tokenizer)
  assert tokenizer.num_encoded == count
  assert (again.fingerprint, again.stride) == (first.fingerprint, LENGTH)
  write(folder, b=[*TEXTS, {"text": "more"}])
  other = load(folder, tokenizer)
  assert tokenizer.num_encoded == 2 * count
  assert other.fingerprint != first.fingerprint


@pytest.mark.parametrize(
  "lines, message",
  [
    (["{'text': 1}"], "b.jsonl', line 2: is not JSON"),
    (["[" * 100_000], "line 2: is not JSON"),
    (["[1]"], "line 2: must be an object .* got list"),
    ([{"txt": "a"}], "line 2: must be .* 'text', or .* got .'txt'"),
    ([{"text": "a", "id": 3}], r"got \['id', 'text'\]"),
    ([{"prompt": "a"}], r"got \['prompt'\]"),
    ([{"text": 7}], "line 2: 'text' must be text, got 7"),
    ([{"text": "\ud800"}], r"'text' must be text, got '\\ud800'"),
    (
      ["", {"prompt": "a", "completion": "b"}],
      r"line 3: .* before, \['text'\]",
    ),
    ([{"text": "aé"}], "task 'b' has token 233, 'é', beyond .*vocab_size=128"),
  ],
)
def test_bad_lines_are_one_line(tmp_path, lines, message):
  folder = write(tmp_path / "t", a=TEXTS, b=[{"text": "x"}, *lines, *TEXTS])
  with pytest.raises(ValueError, match=message) as error:
    load(folder)
  assert "\n" not in str(error.value) and len(str(error.value)) < 400


def test_bad_folders_of_tasks_are_one_line(tmp_path):
  few = examples("a", "b", count=3)
  for files, options, message in (
    ({"a": TEXTS}, {}, r"2 sub-folders or files \*.jsonl, .* got 1"),
    ({"a": TEXTS, "b": [""]}, {}, "task file '.*b.jsonl' holds no text"),
    ({"a": TEXTS, "b": TEXTS[:1]}, {}, r"'b' needs at least context \+ 1 = 6"),
    (
      {"a": TEXTS, "b": few},
      {"min_windows": {"validation": 4}},
      "'b' needs at least 4 windows of .* = 6 tokens of validation .* got 12",
    ),
  ):
    folder = write(tmp_path / f"t{len(message)}", **files)
    with pytest.raises(ValueError, match=message) as error:
      load(folder, **options)
    assert "\n" not in str(error.value)
  (folder / "a").mkdir()
  with pytest.raises(ValueError, match="folder or a file, got both of 'a'"):
    load(folder)
  (folder / "a").rmdir()
  (folder / "a.jsonl").write_bytes(b"\xff")
  with pytest.raises(ValueError, match="a.jsonl' is not UTF-8"):
    load(folder)


def test_a_corpus_of_bytes_keeps_its_splits(tmp_path):
  texts = {"train": b"Abc", "validation": b"xy", "test": b"zz"}
  parts = {
    task: {
      split: np.frombuffer(part * times, np.uint8)
      for split, part in texts.items()
    }
    for task, times in (("one", 4), ("two", 6))
  }
  bytes_corpus = corpora.make_corpus(parts)
  tokenizer = Letters()

  def make(corpus):
    return data.tokenise_corpus(
      corpus,
      tokenizer,
      vocab_size=128,
      context=LENGTH - 1,
      min_windows={"test": 1},
      cache_dir=tmp_path,
    )

  made = make(bytes_corpus)
  # A capital letter is two tokens.
  assert made.splits["train"][0].tolist() == [UPPER, 97, 98, 99] * 4
  assert made.splits["test"][1].tolist() == [122] * 12
  assert made.task_names == ("one", "two")
  # Kept by text: the same once more, another anew.
  count = tokenizer.num_encoded
  assert make(bytes_corpus).fingerprint == made.fingerprint
  assert tokenizer.num_encoded == count
  some = data.select_tasks(bytes_corpus, ["two", "one"])
  assert make(some).splits["train"][1].tolist() == [UPPER, 97, 98, 99] * 4
  assert tokenizer.num_encoded > count
  with pytest.raises(ValueError, match=r"of \['one', 'two'\], got \['one'\]"):
    data.select_tasks(bytes_corpus, ["one"])
  with pytest.raises(ValueError, match=r"got \['one', 'three'\]"):
    data.select_tasks(bytes_corpus, ["one", "three"])
