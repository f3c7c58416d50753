"""Finds text that a JAX installation already holds, without importing it.

A document is a pair (name, text in bytes). Its name is `<root>/<path>` with
the root's own name, never a path of this machine, so that everything derived
from names (order, split) is the same wherever the same versions are installed.
"""

import ast
import collections
import contextlib
import gc
import hashlib
import importlib.util
import inspect
import os
import sysconfig
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path

Document = tuple[str, bytes]

# Parts of the standard library that are someone's packages, missing from some
# distributions, or text of another domain (codec tables, pydoc topics).
STDLIB_SKIPPED = frozenset(
  "site-packages dist-packages test tests idlelib lib2to3 ensurepip encodings"
  " pydoc_data".split()
)


def name_key(name: str) -> bytes:
  """Returns the hash of a document's name: its place in every order."""
  return hashlib.sha256(name.encode(errors="surrogateescape")).digest()


def stdlib_root() -> Path:
  """Returns the folder of the standard library."""
  return Path(sysconfig.get_path("stdlib"))


def include_root() -> Path:
  """Returns the folder of CPython's headers; it need not exist."""
  return Path(sysconfig.get_path("include"))


def package_root(package: str) -> Path | None:
  """Returns the folder of a top-level package, or None without it.

  The package is located, not imported.

  Args:
    package: a top-level import name, such as "numpy".
  """
  spec = importlib.util.find_spec(package)
  if spec is None or not spec.submodule_search_locations:
    return None
  return Path(next(iter(spec.submodule_search_locations)))


def find_files(
  roots: Iterable[tuple[str, Path | None]],
  suffixes: tuple[str, ...],
  *,
  skipped: frozenset[str] = frozenset(),
) -> list[tuple[str, Path]]:
  """Lists files under several roots, in the order of their names' hashes.

  Args:
    roots: pairs (name of the root, folder); absent folders are passed over.
    suffixes: endings of the wanted files, such as (".py",).
    skipped: names of folders that are not entered.

  Returns:
    A list of pairs (document name, path).
  """
  found = {}
  for root_name, root in roots:
    if root is None:
      continue
    for folder, subfolders, files in os.walk(root):
      subfolders[:] = [name for name in subfolders if name not in skipped]
      for file in files:
        if file.endswith(suffixes):
          path = Path(folder, file)
          found[f"{root_name}/{path.relative_to(root).as_posix()}"] = path
  return sorted(found.items(), key=lambda item: name_key(item[0]))


def read_text(path: Path) -> bytes | None:
  r"""Reads a UTF-8 text with "\n" line ends; None if it is not one."""
  try:
    text = path.read_bytes().replace(b"\r\n", b"\n")
    text.decode()
  except (OSError, UnicodeDecodeError):
    return None
  return None if b"\0" in text else text


def read_documents(files: Iterable[tuple[str, Path]]) -> Iterator[Document]:
  """Yields the text of each file that holds any."""
  for name, path in files:
    text = read_text(path)
    if text is not None:
      yield name, text


@contextlib.contextmanager
def _no_garbage_collection() -> Iterator[None]:
  """Halves the time to parse: a tree is many objects, and none is garbage."""
  enabled = gc.isenabled()
  gc.disable()
  try:
    yield
  finally:
    if enabled:
      gc.enable()


def parse(source: bytes) -> ast.Module | None:
  """Parses Python source; None if this Python cannot."""
  try:
    with warnings.catch_warnings(), _no_garbage_collection():
      # Old sources hold invalid escapes; that is their business, not ours.
      warnings.simplefilter("ignore")
      return ast.parse(source)
  except (SyntaxError, ValueError, RecursionError):
    return None


def _docstring_nodes(tree: ast.Module) -> Iterator[ast.Constant]:
  owners = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
  # Not `ast.walk`: it visits each expression, which takes twice the time.
  queue = collections.deque([tree])
  while queue:
    node = queue.popleft()
    for field in ("body", "handlers", "orelse", "finalbody", "cases"):
      children = getattr(node, field, ())
      # The bodies of `lambda` and `a if b else c` are no lists.
      queue.extend(children if isinstance(children, list) else ())
    if isinstance(node, owners) and node.body:
      value = getattr(node.body[0], "value", None)
      if isinstance(value, ast.Constant) and isinstance(value.value, str):
        if isinstance(node.body[0], ast.Expr):
          yield value


def docstrings(source: bytes) -> list[str]:
  """Returns the docstrings of a Python source, without their indentation."""
  tree = parse(source)
  if tree is None:
    return []
  return [inspect.cleandoc(node.value) for node in _docstring_nodes(tree)]


def without_docstrings(source: bytes) -> bytes | None:
  """Returns a Python source less its docstrings; None if it does not parse.

  Prose and doctests are domains of their own: text that two domains share
  could be learnt in the one and examined in the other.
  """
  tree = parse(source)
  if tree is None:
    return None
  lines = source.split(b"\n")
  for node in _docstring_nodes(tree):
    # A docstring behind `def f():` on one line stays: its line is code too.
    if not lines[node.lineno - 1][: node.col_offset].strip():
      for line in range(node.lineno - 1, node.end_lineno):
        lines[line] = None
  return b"\n".join(line for line in lines if line is not None)


def separate_doctests(docstring: str) -> tuple[str, str]:
  """Parts a docstring into its prose and its doctest blocks.

  As in `doctest`, a block starts at a line that begins with ">>>" and ends
  before the next blank line.

  Returns:
    A pair (prose, doctests); either may be empty.
  """
  prose, doctests, inside = [], [], False
  for line in docstring.split("\n"):
    starts = line.lstrip().startswith(">>>")
    if inside and not line.strip():
      doctests.append("")
    inside = starts or (inside and bool(line.strip()))
    (doctests if inside else prose).append(line)
  return "\n".join(prose).strip(), "\n".join(doctests).strip()


def string_constants(node: ast.AST) -> list[str]:
  """Returns the string constants directly or indirectly under a node."""
  return [
    item.value
    for item in ast.walk(node)
    if isinstance(item, ast.Constant) and isinstance(item.value, str)
  ]
