"""Tasks as the tokens of a checkpoint, made once and kept in the cache."""

import collections
import dataclasses
import hashlib
import json
import os
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from tanbr_jax.data import corpus as corpora
from tanbr_jax.data import folder, json_lines, splits
from tanbr_jax.data.corpus import Corpus
from tanbr_jax.data.json_lines import Example
from tanbr_jax.storage import cache

# Part of the cache's key: raise it when the code makes other tokens.
CODE_VERSION = 1
SUFFIX = ".jsonl"
# No text is trained on: the largest part is served.
_USES = {"train": (), "validation": ("validation", "test"), "test": ("train",)}
# Characters of running text that are encoded at a time.
_PIECE = 1_000_000


class _Task(NamedTuple):
  """A task's split name -> its pieces of running text, or its examples."""

  has_prompts: bool
  parts: dict[str, list[Example]]


def load_tokens(
  path: str | os.PathLike[str],
  tokenizer: Any,
  *,
  vocab_size: int,
  context: int,
  min_windows: Mapping[str, int],
  cache_dir: str | os.PathLike[str] | None = None,
) -> Corpus:
  """Reads a folder of tasks and makes tokens of it.

  A task is a sub-folder of text, see `folder.load_folder`, or a file of JSON
  lines, see `json_lines`. Text is joined and may be cut anywhere into windows.
  Where a task has prompts and completions, the windows of all tasks are rows of
  `context + 1` tokens that do not overlap. Such a row is one example: its
  prompt, cut at the front where both are too long, its completion, and padding
  behind it; prompt and padding are not scored, see `batching`. The tokenizer
  puts its special tokens around examples, and not into running text.

  Args:
    path: the folder of tasks.
    tokenizer: a `tokenizers.Tokenizer`, of `models.read_tokenizer`; its
      truncation and padding are switched off.
    vocab_size: of the model.
    context: S.
    min_windows: split -> windows of S + 1 tokens that each task needs in it.
    cache_dir: where tokens are kept, by tokenizer, text and context; see
      `tanbr_jax.storage.cache.cache_dir`.

  Returns:
    The corpus: uint32 tokens, or int32 where some are not scored. Nothing is
    trained on, hence "train" is empty, and the largest part of the text is in
    "test".

  Raises:
    ValueError: missing, malformed or too short text, or tokens that the model
      does not have, in one line.
  """
  tokenizer.no_truncation()
  tokenizer.no_padding()
  tasks, messages = _read_tasks(path, context)
  key = {
    "code": CODE_VERSION,
    "tokenizer": _digest(tokenizer.to_str()),
    "text": _digest(json.dumps(tasks)),
    "context": context,
  }
  file = f"tokens-{_digest(json.dumps(key))[:16]}.npz"
  file = cache.cache_dir(cache_dir) / file

  def make() -> Corpus:
    made = _tokenise(tasks, tokenizer, context + 1)
    corpora.save_corpus(file, made, key)
    return made

  found = cache.fetch(
    file, read=lambda: corpora.read_corpus(file, key), make=make
  )
  _check(found, tokenizer, vocab_size, context + 1, min_windows)
  return dataclasses.replace(found, messages=messages + found.messages)


def tokenise_corpus(
  corpus: Corpus,
  tokenizer: Any,
  *,
  vocab_size: int,
  context: int,
  min_windows: Mapping[str, int],
  cache_dir: str | os.PathLike[str] | None = None,
) -> Corpus:
  """Makes tokens of a corpus of bytes, split by split.

  Args:
    corpus: of `load_corpus`.
    tokenizer: as for `load_tokens`.
    vocab_size: of the model.
    context: S.
    min_windows: split -> windows of S + 1 tokens that each task needs in it.
    cache_dir: as for `load_tokens`.

  Returns:
    The corpus of uint32 tokens, its splits those of the bytes.

  Raises:
    ValueError: too little text, or tokens that the model does not have.
  """
  tokenizer.no_truncation()
  tokenizer.no_padding()
  key = {
    "code": CODE_VERSION,
    "tokenizer": _digest(tokenizer.to_str()),
    "corpus": corpus.fingerprint,
  }
  file = f"tokens-{_digest(json.dumps(key))[:16]}.npz"
  file = cache.cache_dir(cache_dir) / file

  def make() -> Corpus:
    tasks = {
      name: _Task(
        False,
        {split: _pieces(texts[task]) for split, texts in corpus.splits.items()},
      )
      for task, name in enumerate(corpus.task_names)
    }
    made = _tokenise(tasks, tokenizer, context + 1)
    made = dataclasses.replace(made, messages=corpus.messages)
    corpora.save_corpus(file, made, key)
    return made

  found = cache.fetch(
    file, read=lambda: corpora.read_corpus(file, key), make=make
  )
  _check(found, tokenizer, vocab_size, context + 1, min_windows)
  return found


def _digest(text: str) -> str:
  return hashlib.sha256(text.encode()).hexdigest()


def _read_tasks(
  path: str | os.PathLike[str], context: int
) -> tuple[dict[str, _Task], tuple[str, ...]]:
  """The text of every task, by what it is used for, and messages."""
  paths, messages = folder.task_paths(path, suffix=SUFFIX)
  tasks = {}
  for item in paths:
    name, has_prompts = folder.task_name(item), False
    if item.is_dir():
      documents, notes = folder.read_task(item)
    else:
      examples, has_prompts, notes = json_lines.read_examples(item)
      documents = [(str(e.line), e.text.encode()) for e in examples]
    messages += tuple(notes)
    if has_prompts:
      by_line = {str(example.line): example for example in examples}
      dealt = {
        split: [by_line[line] for line, _ in part]
        for split, part in splits.assign_splits(documents).items()
      }
    else:
      text, notes = folder.split_task(name, documents, context)
      messages += tuple(notes)
      dealt = {split: _pieces(part) for split, part in text.items()}
    tasks[name] = _Task(
      has_prompts,
      {
        split: [piece for use in uses for piece in dealt[use]]
        for split, uses in _USES.items()
      },
    )
  return tasks, messages


def _pieces(text: np.ndarray) -> list[Example]:
  """Running text [N] of bytes; what is no UTF-8 becomes U+FFFD."""
  whole = text.tobytes().decode("utf-8", "replace")
  return [
    Example(whole[i : i + _PIECE], 0, 0) for i in range(0, len(whole), _PIECE)
  ]


def _tokenise(
  tasks: Mapping[str, _Task], tokenizer: Any, length: int
) -> Corpus:
  """The tokens of all tasks, in rows where one has prompts."""
  in_rows = any(task.has_prompts for task in tasks.values())
  found, messages = {}, []
  for name, task in tasks.items():
    found[name], num_empty = {}, 0
    for split, part in task.parts.items():
      texts = [example.text for example in part]
      encoded = tokenizer.encode_batch(
        texts, add_special_tokens=task.has_prompts
      )
      if task.has_prompts:
        rows = [_row(*pair, length) for pair in zip(encoded, part, strict=True)]
        tokens = [row for row in rows if row is not None]
        num_empty += len(rows) - len(tokens)
      else:
        tokens = [np.array(one.ids, np.int64) for one in encoded]
      dtype = np.int32 if in_rows else np.uint32
      found[name][split] = np.concatenate([[], *tokens]).astype(dtype)
    if num_empty:
      kind = collections.Counter({"example without tokens to score": num_empty})
      messages.append(f"task {name!r}: left out {folder.tell(kind)}")
  return corpora.make_corpus(
    found, tuple(messages), stride=length if in_rows else 1
  )


def _row(encoded: Any, example: Example, length: int) -> np.ndarray | None:
  """An example in a row of tokens; None if it has nothing to score.

  What is not scored is stored as -1 - token, padding as that of token 0.
  """
  ids = np.array(encoded.ids, np.int64)
  ends = np.array([end for _, end in encoded.offsets], np.int64)
  # Special tokens are at no place of the text. A token of both is scored.
  places = np.flatnonzero(ends > example.num_read)
  if not places.size or places[-1] == 0:
    return None
  # The last tokens, unless that would cut the completion's first.
  begin = max(0, min(ids.size - length, int(places[0]) - 1))
  marked = np.where(ends > example.num_read, ids, ~ids)
  row = np.full(length, -1, np.int64)
  kept = marked[begin : begin + length]
  row[: kept.size] = kept
  return row


def _check(
  corpus: Corpus,
  tokenizer: Any,
  vocab_size: int,
  length: int,
  min_windows: Mapping[str, int],
) -> None:
  for split, texts in corpus.splits.items():
    for name, tokens in zip(corpus.task_names, texts, strict=True):
      needed = min_windows.get(split, 0)
      if tokens.size < needed * length:
        raise ValueError(
          f"task {name!r} needs at least {needed} windows of context + 1 = "
          f"{length} tokens of {split} text, got {tokens.size} tokens"
        )
      ids = np.where(tokens < 0, ~tokens, tokens)
      if ids.size and (most := int(ids.max())) >= vocab_size:
        raise ValueError(
          f"task {name!r} has token {most}, "
          f"{tokenizer.id_to_token(most)!r}, beyond the model's "
          f"vocab_size={vocab_size}"
        )
