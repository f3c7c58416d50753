"""A user's own text: a folder with one sub-folder for each task."""

import hashlib
import os
from pathlib import Path

from tanbr_jax.data import splits
from tanbr_jax.data.sources import Document


def _regular_files(folder: Path) -> list[Path]:
  found = []
  for parent, subfolders, files in os.walk(folder):
    subfolders[:] = [name for name in subfolders if not name.startswith(".")]
    found += [Path(parent, name) for name in files if not name.startswith(".")]
  return sorted(path for path in found if path.is_file())


def _read_task(folder: Path) -> tuple[list[Document], list[str]]:
  """Reads a task's distinct documents, named relative to its folder."""
  documents, seen, dropped = [], set(), 0
  for path in _regular_files(folder):
    try:
      text = path.read_bytes()
    except OSError as error:
      raise ValueError(f"cannot read {str(path)!r} ({error})") from None
    digest = hashlib.sha256(text).digest()
    dropped += digest in seen
    if text and digest not in seen:
      seen.add(digest)
      documents.append((path.relative_to(folder).as_posix(), text))
  if not documents:
    raise ValueError(f"task folder {str(folder)!r} holds no text")
  message = f"task {folder.name!r}: dropped {dropped} repeated documents"
  return documents, [message] if dropped else []


def _split_task(
  folder: Path, documents: list[Document], context: int
) -> tuple[splits.SplitText, list[str]]:
  """Splits by document where that gives enough text, else by position."""
  messages, text = [], splits.split_by_document(documents)
  total = sum(len(document) for _, document in documents)
  # One huge document may land in a small split and leave little to learn from.
  fair = text["train"].size >= total / 2
  if not fair or min(part.size for part in text.values()) <= context:
    text = splits.split_by_position(documents)
    messages.append(
      f"task {folder.name!r}: split by position, because its "
      f"{len(documents)} document(s) cannot be dealt to three splits"
    )
  for split, part in text.items():
    if part.size <= context:
      raise ValueError(
        f"task {folder.name!r} needs at least context + 1 = {context + 1} "
        f"bytes in each split, got {part.size} in {split} of {total} in all"
      )
  return text, messages


def task_folders(path: str | os.PathLike[str]) -> list[Path]:
  """Lists the sub-folders that are tasks, sorted by name.

  Args:
    path: a folder; hidden sub-folders are skipped.

  Raises:
    ValueError: no such folder, or fewer than two tasks in it.
  """
  root = Path(path).expanduser()
  if not root.is_dir():
    raise ValueError(f"data path must be a folder, got {str(root)!r}")
  folders = sorted(
    item
    for item in root.iterdir()
    if item.is_dir() and not item.name.startswith(".")
  )
  if len(folders) < 2:
    raise ValueError(
      "data path must hold at least 2 sub-folders, one for each task, got "
      f"{len(folders)} in {str(root)!r}"
    )
  return folders


def load_folder(
  path: str | os.PathLike[str], *, context: int
) -> tuple[dict[str, splits.SplitText], tuple[str, ...]]:
  """Reads and splits a folder of tasks; any bytes are text.

  Each regular file under a task's folder is a document. Hidden files and
  files that repeat another are skipped. A task whose documents cannot be
  dealt to three splits is cut by position instead, with a message.

  Args:
    path: a folder with one sub-folder for each task.
    context: each split must hold at least `context + 1` bytes.

  Returns:
    A dict from a task's name to its split text, and messages.

  Raises:
    ValueError: a missing or empty folder, or too little text.
  """
  tasks, messages = {}, []
  for folder in task_folders(path):
    documents, dropped = _read_task(folder)
    tasks[folder.name], notes = _split_task(folder, documents, context)
    messages += dropped + notes
  return tasks, tuple(messages)
