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


def read_task(folder: Path) -> tuple[list[Document], list[str]]:
  """Reads a task's distinct documents, named relative to its folder.

  Returns:
    The documents, and messages on what was left out.

  Raises:
    ValueError: no document is left.
  """
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
  if not documents:
    found = f" (left out: {tell(left_out)})" if left_out else ""
    raise ValueError(f"task folder {str(folder)!r} holds no text{found}")
  if not left_out:
    return documents, []
  return documents, [f"task {folder.name!r}: left out {tell(left_out)}"]


def tell(left_out: Counter[str]) -> str:
  """How many of what, as text."""
  return ", ".join(f"{n} {kind}(s)" for kind, n in sorted(left_out.items()))


def split_task(
  task: str, documents: list[Document], context: int
) -> tuple[splits.SplitText, list[str]]:
  """Splits by document where that gives enough text, else by position.

  Args:
    task: its name.
    documents: of the task.
    context: each split must hold at least `context + 1` bytes.

  Returns:
    The split text, and messages.

  Raises:
    ValueError: too little text.
  """
  messages, text = [], splits.split_by_document(documents)
  total = sum(len(document) for _, document in documents)
  # One huge document may land in a small split and leave little to learn from.
  fair = text["train"].size >= total / 2
  if not fair or min(part.size for part in text.values()) <= context:
    text = splits.split_by_position(documents)
    messages.append(
      f"task {task!r}: split by position, because its "
      f"{len(documents)} document(s) cannot be dealt to three splits"
    )
  for split, part in text.items():
    if part.size <= context:
      raise ValueError(
        f"task {task!r} needs at least context + 1 = {context + 1} "
        f"bytes in each split, got {part.size} in {split} of {total} in all"
      )
  return text, messages


def task_paths(
  path: str | os.PathLike[str], *, suffix: str | None = None
) -> tuple[list[Path], tuple[str, ...]]:
  """Lists the sub-folders, and files of one suffix, that are tasks.

  Args:
    path: a folder; what is hidden in it is skipped.
    suffix: of files that are tasks, such as ".jsonl"; None for folders alone.

  Returns:
    The paths, sorted by name, and messages on what is no task.

  Raises:
    ValueError: no such folder, fewer than two tasks in it, or two of one name.
  """
  root = Path(path).expanduser()
  if not root.is_dir():
    raise ValueError(f"data path must be a folder, got {str(root)!r}")
  found = [item for item in root.iterdir() if not _is_hidden(item.name)]
  tasks = sorted(
    item
    for item in found
    if item.is_dir() or (suffix and item.suffix == suffix)
  )
  if len(tasks) < 2:
    files = f" or files *{suffix}" if suffix else ""
    raise ValueError(
      f"data path must hold at least 2 sub-folders{files}, one for each task, "
      f"got {len(tasks)} in {str(root)!r}"
    )
  names = collections.Counter(task_name(item) for item in tasks)
  if twice := [name for name, count in names.items() if count > 1]:
    raise ValueError(
      f"a task must be a folder or a file, got both of {twice[0]!r} in "
      f"{str(root)!r}"
    )
  if len(found) == len(tasks):
    return tasks, ()
  num = len(found) - len(tasks)
  beside = "tasks" if suffix else "task folders"
  return tasks, (f"left out {num} file(s) beside the {beside}",)


def task_name(path: Path) -> str:
  """The name of a task: its folder's, or its file's without the suffix."""
  return path.name if path.is_dir() else path.stem


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
  tasks = {}
  folders, messages = task_paths(path)
  for folder in folders:
    documents, left_out = read_task(folder)
    tasks[folder.name], notes = split_task(folder.name, documents, context)
    messages += (*left_out, *notes)
  return tasks, messages
