"""A user's own text: a folder with one sub-folder for each task."""

import collections
import hashlib
import os
from collections import Counter
from pathlib import Path

from tanbr_jax.data import splits
from tanbr_jax.data.sources import Document


def _is_hidden(name: str) -> bool:
  return name.startswith(".")


def _is_loop(link: Path) -> bool:
  """Whether a link leads to a folder that it lies in."""
  target = os.path.realpath(link)
  inside = os.path.realpath(link.parent)
  return os.path.commonpath([target, inside]) == target


def _find_files(folder: Path) -> tuple[list[Path], Counter[str]]:
  """Lists the regular files below a folder; links to folders are followed.

  Linked folders come after all real ones, in the order of their paths: a link
  adds documents and gives none another name. No folder is entered twice.

  Returns:
    The files, sorted, and how many of what was left out.
  """
  files, left_out, entered = [], collections.Counter(), set()

  def count_unreadable(error: OSError) -> None:
    del error  # its number is told, not its reason
    left_out["unreadable folder"] += 1

  waiting = collections.deque([folder])
  while waiting:
    for parent, subfolders, names in os.walk(
      waiting.popleft(), onerror=count_unreadable
    ):
      # A folder that a link has led to before.
      if (real := os.path.realpath(parent)) in entered:
        left_out["folder linked again"] += 1
        subfolders.clear()
        continue
      entered.add(real)
      # Its links wait for their turn; `os.walk` does not follow them.
      for name in sorted(subfolders):
        path = Path(parent, name)
        if path.is_symlink() and not _is_hidden(name):
          if _is_loop(path):
            left_out["link loop"] += 1
          else:
            waiting.append(path)
      subfolders[:] = sorted(n for n in subfolders if not _is_hidden(n))
      # Its files.
      for path in (Path(parent, n) for n in names if not _is_hidden(n)):
        if os.path.isfile(path):
          files.append(path)
        else:
          kind = "dangling link" if path.is_symlink() else "special file"
          left_out[kind] += 1
  return sorted(files), left_out


def _read_task(folder: Path) -> tuple[list[Document], list[str]]:
  """Reads a task's distinct documents, named relative to its folder."""
  documents, seen = [], set()
  files, left_out = _find_files(folder)
  for path in files:
    try:
      text = path.read_bytes()
    except OSError:
      left_out["unreadable file"] += 1
      continue
    digest = hashlib.sha256(text).digest()
    if not text:
      left_out["empty file"] += 1
    elif digest in seen:
      left_out["repeated document"] += 1
    else:
      seen.add(digest)
      documents.append((path.relative_to(folder).as_posix(), text))
  told = ", ".join(f"{n} {kind}(s)" for kind, n in sorted(left_out.items()))
  if not documents:
    found = f" (left out: {told})" if told else ""
    raise ValueError(f"task folder {str(folder)!r} holds no text{found}")
  return documents, [f"task {folder.name!r}: left out {told}"] if told else []


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
    if item.is_dir() and not _is_hidden(item.name)
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

  Each regular file under a task's folder is a document; links are followed.
  Hidden files and folders are skipped. What else is left out (files that are
  empty, unreadable or repeat another, link loops and the like) is counted in a
  message. A task whose documents cannot be dealt to three splits is cut by
  position instead, with a message.

  Args:
    path: a folder with one sub-folder for each task.
    context: each split must hold at least `context + 1` bytes.

  Returns:
    A dict from a task's name to its split text, and messages.

  Raises:
    ValueError: a missing or empty folder, or too little text.
  """
  tasks, messages = {}, []
  folders = task_folders(path)
  loose = [
    item.name
    for item in folders[0].parent.iterdir()
    if not item.is_dir() and not _is_hidden(item.name)
  ]
  if loose:
    messages.append(f"left out {len(loose)} file(s) beside the task folders")
  for folder in folders:
    documents, left_out = _read_task(folder)
    tasks[folder.name], notes = _split_task(folder, documents, context)
    messages += left_out + notes
  return tasks, tuple(messages)
