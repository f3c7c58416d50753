"""A corpus: the text of V tasks in three splits, with a fingerprint."""

import dataclasses
import hashlib
import json
import os
import platform
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path

import numpy as np

from tanbr_jax.data import domains, folder, splits
from tanbr_jax.storage import atomic, cache

# Part of the cache's key: raise it when the code collects other text.
CODE_VERSION = 3

Splits = dict[str, tuple[np.ndarray, ...]]


@dataclasses.dataclass(frozen=True, eq=False)
class Corpus:
  """The text of V tasks.

  Attributes:
    task_names: V names.
    splits: a dict from "train", "validation" and "test" to V arrays [N_v]
      integers, in the order of `task_names`: bytes, or of `load_tokens` tokens.
    fingerprint: sha256, in hexadecimal, of the names and of all text.
    messages: what a user should know of how the text came about.
    stride: of the windows' starts, see `TaskText`.
  """

  task_names: tuple[str, ...]
  splits: Splits
  fingerprint: str
  messages: tuple[str, ...] = ()
  stride: int = 1


def fingerprint(task_names: tuple[str, ...], parts: Splits) -> str:
  """Returns the sha256 of names and text, in hexadecimal.

  Args:
    task_names: V names.
    parts: a dict from each split to V arrays [N_v] of integers.
  """
  digest = hashlib.sha256(json.dumps(task_names).encode())
  for split in splits.SPLITS:
    for text in parts[split]:
      # The length keeps bytes that move between texts from going unnoticed.
      digest.update(f"{split} {text.size};".encode())
      digest.update(np.ascontiguousarray(text))
  return digest.hexdigest()


def make_corpus(
  tasks: Mapping[str, splits.SplitText],
  messages: tuple[str, ...] = (),
  *,
  stride: int = 1,
) -> Corpus:
  """Builds a corpus from each task's split text.

  Args:
    tasks: task name -> split name -> [N] integers, in the order of tasks.
    messages: what a user should know.
    stride: of the windows' starts.
  """
  names = tuple(tasks)
  parts = {
    split: tuple(tasks[name][split] for name in names)
    for split in splits.SPLITS
  }
  return Corpus(names, parts, fingerprint(names, parts), messages, stride)


def select_tasks(corpus: Corpus, names: Sequence[str]) -> Corpus:
  """Returns the corpus of some of its tasks, in the order of the names.

  Raises:
    ValueError: a task is unknown or named twice, or there are fewer than two.
  """
  unknown = [name for name in names if name not in corpus.task_names]
  if unknown or len(set(names)) < max(2, len(names)):
    raise ValueError(
      f"tasks must be at least 2 different ones of {list(corpus.task_names)}, "
      f"got {list(names)}"
    )
  places = [corpus.task_names.index(name) for name in names]
  parts = {
    split: tuple(texts[place] for place in places)
    for split, texts in corpus.splits.items()
  }
  return dataclasses.replace(
    corpus,
    task_names=tuple(names),
    splits=parts,
    fingerprint=fingerprint(tuple(names), parts),
  )


def _version(package: str) -> str:
  try:
    return metadata.version(package)
  except metadata.PackageNotFoundError:
    return "absent"


def _cache_key(cap_bytes: int, min_bytes: int) -> dict:
  """Says all that the collected text depends on."""
  distributions = (
    "orbax-checkpoint" if package == "orbax" else package
    for package in domains.PACKAGES
  )
  return {
    "code": CODE_VERSION,
    "python": platform.python_version(),
    "packages": {name: _version(name) for name in distributions},
    "cap_bytes": cap_bytes,
    "min_bytes": min_bytes,
  }


def collect_corpus(cap_bytes: int, min_bytes: int) -> Corpus:
  """Collects the built-in domains from the installed environment.

  Args:
    cap_bytes: most bytes of a task.
    min_bytes: fewest bytes of a task, in all splits together; validation and
      test text hold at least a tenth of them each.

  Raises:
    ValueError: fewer than two domains are left.
  """
  collected, messages = domains.collect_domains(cap_bytes, min_bytes)
  if len(collected) < 2:
    raise ValueError(
      f"at least 2 text domains are needed, got {len(collected)} "
      f"({'; '.join(messages)}); give a folder of your own text as data path"
    )
  tasks = {
    name: splits.split_by_document(documents)
    for name, documents in collected.items()
  }
  return make_corpus(tasks, messages)


def save_corpus(path: Path, corpus: Corpus, key: dict) -> None:
  """Writes a corpus to one .npz, atomically.

  Args:
    path: the file.
    corpus: what to write.
    key: what the corpus was made from; `read_corpus` compares it.
  """
  arrays = {
    f"{split}_{task}": text
    for split, texts in corpus.splits.items()
    for task, text in enumerate(texts)
  }
  header = {
    "key": key,
    "task_names": corpus.task_names,
    "fingerprint": corpus.fingerprint,
    "messages": corpus.messages,
    "stride": corpus.stride,
  }
  atomic.write_arrays(path, arrays, header=header)


def read_corpus(path: Path, key: dict) -> Corpus:
  """Reads what `save_corpus` wrote and checks it against key and fingerprint.

  Raises:
    FileNotFoundError: there is no such file.
    ValueError: the file is corrupt, or is not what the key asks for.
  """
  arrays, header = atomic.read_arrays(path)
  try:
    names = tuple(header["task_names"])
    parts = {
      split: tuple(arrays[f"{split}_{task}"] for task in range(len(names)))
      for split in splits.SPLITS
    }
    messages, stride = tuple(header["messages"]), int(header["stride"])
    stored = (header["key"], header["fingerprint"])
  except (KeyError, TypeError) as error:
    raise ValueError(f"{str(path)!r} is no corpus ({error!r})") from None
  if stored != (key, fingerprint(names, parts)):
    raise ValueError(f"{str(path)!r} does not hold what its key says")
  return Corpus(names, parts, stored[1], messages, stride)


def _cached_corpus(root: Path, cap_bytes: int, min_bytes: int) -> Corpus:
  key = _cache_key(cap_bytes, min_bytes)
  digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
  path = root / f"corpus-{digest[:16]}.npz"

  def make() -> Corpus:
    corpus = collect_corpus(cap_bytes, min_bytes)
    save_corpus(path, corpus, key)
    return corpus

  return cache.fetch(path, read=lambda: read_corpus(path, key), make=make)


def load_corpus(
  path: str | os.PathLike[str] | None = None,
  cache_dir: str | os.PathLike[str] | None = None,
  *,
  cap_bytes: int = 2_000_000,
  min_bytes: int = 200_000,
  context: int = 64,
) -> Corpus:
  """Loads a folder of text, or by default the built-in domains.

  Args:
    path: a folder with one sub-folder for each task; see `load_folder`.
    cache_dir: where the built-in domains are kept once collected; see
      `tanbr_jax.storage.cache.cache_dir`.
    cap_bytes: most bytes of a built-in domain.
    min_bytes: a built-in domain with fewer bytes is replaced by another.
    context: each split must hold at least `context + 1` bytes.

  Returns:
    The corpus.

  Raises:
    ValueError: bad arguments, missing or too short text, an unwritable cache.
  """
  if context < 1:
    raise ValueError(f"context must be at least 1, got context={context}")
  if path is not None:
    return make_corpus(*folder.load_folder(path, context=context))
  needed = 10 * (context + 1)
  if not needed <= min_bytes <= cap_bytes:
    raise ValueError(
      f"min_bytes must be in [10 * (context + 1), cap_bytes], got min_bytes="
      f"{min_bytes}, context={context}, cap_bytes={cap_bytes}"
    )
  return _cached_corpus(cache.cache_dir(cache_dir), cap_bytes, min_bytes)
