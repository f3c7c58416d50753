"""The text domains of the embedded workload, and spares for missing ones.

Each domain is a function without arguments that yields documents in the order
of their names' hashes, lazily: reading stops when the cap is reached, and what
was read is then a fair sample of the domain.
"""

import ast
import hashlib
import unicodedata
from collections.abc import Callable, Iterator, Mapping

from tanbr_jax.data import sources
from tanbr_jax.data.sources import Document

PIECE_BYTES = 64_000
MIN_DOCUMENT_BYTES = 256
MIN_DOCUMENTS = 10
MIN_EXAMPLES = 20

# Import names; all of them come with the package itself.
PACKAGES = (
  "numpy",
  "scipy",
  "jax",
  "jaxlib",
  "ml_dtypes",
  "flax",
  "optax",
  "orbax",
  "matplotlib",
)

_TESTS = frozenset({"test", "tests", "testing", "__pycache__"})


def _packages(*names: str) -> list:
  return [(name, sources.package_root(name)) for name in names]


def python() -> Iterator[Document]:
  """Yields CPython's standard library, less its docstrings."""
  files = sources.find_files(
    [("cpython", sources.stdlib_root())],
    (".py",),
    skipped=sources.STDLIB_SKIPPED,
  )
  for name, text in sources.read_documents(files):
    code = sources.without_docstrings(text)
    if code is not None:
      yield name, code


def _documented_sources() -> Iterator[Document]:
  roots = [("cpython", sources.stdlib_root()), *_packages(*PACKAGES)]
  files = sources.find_files(
    roots, (".py",), skipped=sources.STDLIB_SKIPPED | _TESTS
  )
  return sources.read_documents(files)


def prose() -> Iterator[Document]:
  """Yields pydoc's topics, then docstrings less doctests, a file each."""
  topics = sources.read_text(sources.stdlib_root() / "pydoc_data/topics.py")
  tree = sources.parse(topics or b"")
  for node in ast.walk(tree) if tree else ():
    if isinstance(node, ast.Dict):
      for key, value in zip(node.keys, node.values, strict=True):
        text = "".join(sources.string_constants(value))
        yield f"pydoc/{ast.literal_eval(key)}", text.encode()
  for name, text in _documented_sources():
    parts = [sources.separate_doctests(d)[0] for d in sources.docstrings(text)]
    yield name, "\n\n".join(filter(None, parts)).encode()


def doctest() -> Iterator[Document]:
  """Yields the interactive examples of docstrings, a file each."""
  for name, text in _documented_sources():
    # To parse the files with few examples takes a third of the time and
    # brings a twelfth of the examples.
    if text.count(b">>>") >= MIN_EXAMPLES:
      docs = sources.docstrings(text)
      parts = [sources.separate_doctests(d)[1] for d in docs]
      yield name, "\n\n".join(filter(None, parts)).encode()


def c() -> Iterator[Document]:
  """Yields headers of CPython, numpy, scipy and jaxlib."""
  roots = [("cpython", sources.include_root())]
  roots += _packages("numpy", "scipy", "jaxlib")
  return sources.read_documents(
    sources.find_files(roots, (".h", ".hpp", ".c", ".cc"))
  )


def numbers() -> Iterator[Document]:
  """Yields numeric tables from the data of numpy, scipy and matplotlib."""
  files = sources.find_files(
    _packages("numpy", "scipy", "matplotlib"), (".csv", ".dat", ".txt", ".arff")
  )
  digits = b"0123456789.,;+-eE \t\n"
  for name, text in sources.read_documents(files):
    # Reports and notes lie among the tables; a table is mostly digits, even
    # where it spells types and hexadecimal numbers out.
    if len(text.translate(None, digits)) < len(text) // 2:
      yield name, text


def stubs() -> Iterator[Document]:
  """Yields type stubs of the installed packages."""
  files = sources.find_files(_packages(*PACKAGES), (".pyi",))
  return sources.read_documents(files)


def _unicode_line(code: int) -> str | None:
  char = chr(code)
  name = unicodedata.name(char, "")
  # Ideographs are named by their own number and Hangul by a rule: a hundred
  # thousand lines that say nothing.
  ruled = name.endswith(f"{code:04X}") or name.startswith("HANGUL SYLLABLE")
  if not name or ruled:
    return None
  fields = (
    f"{code:04X}",
    name,
    unicodedata.category(char),
    unicodedata.bidirectional(char),
    unicodedata.decomposition(char),
  )
  return ";".join(fields)


def unicode() -> Iterator[Document]:
  """Yields `unicodedata` as text, 256 code points a document."""
  # The planes from 2 on hold ideographs, tags and nothing else.
  blocks = {f"unicode/{b:03X}00": b for b in range(0x200)}
  for name in sorted(blocks, key=sources.name_key):
    first = 256 * blocks[name]
    lines = map(_unicode_line, range(first, first + 256))
    yield name, "\n".join(filter(None, lines)).encode()


def mlir() -> Iterator[Document]:
  """Yields the modules in jax's tests of exported programs, a file each."""
  folder = "_src/internal_test_util/export_back_compat_test_data"
  root = sources.package_root("jax")
  files = sources.find_files([("jax", root and root / folder)], (".py",))
  for name, text in sources.read_documents(files):
    tree = sources.parse(text)
    modules = [
      module.strip()
      for node in (ast.walk(tree) if tree else ())
      if isinstance(node, ast.keyword) and node.arg == "mlir_module_text"
      for module in sources.string_constants(node.value)
    ]
    yield name, "\n\n".join(modules).encode()


def codecs() -> Iterator[Document]:
  """Yields the tables of CPython's character codecs (a spare)."""
  root = sources.stdlib_root() / "encodings"
  return sources.read_documents(
    sources.find_files([("encodings", root)], (".py",))
  )


def fonts() -> Iterator[Document]:
  """Yields matplotlib's font metrics, in Adobe's AFM (a spare)."""
  return sources.read_documents(
    sources.find_files(_packages("matplotlib"), (".afm",))
  )


def cython() -> Iterator[Document]:
  """Yields Cython sources and declarations of numpy and scipy (a spare)."""
  return sources.read_documents(
    sources.find_files(_packages("numpy", "scipy"), (".pxd", ".pyx"))
  )


Collector = Callable[[], Iterator[Document]]

DOMAINS: Mapping[str, Collector] = {
  "python": python,
  "prose": prose,
  "c": c,
  "numbers": numbers,
  "stubs": stubs,
  "unicode": unicode,
  "doctest": doctest,
  "mlir": mlir,
}

SPARES: Mapping[str, Collector] = {
  "codecs": codecs,
  "fonts": fonts,
  "cython": cython,
}


def _distinct(documents: Iterator[Document]) -> Iterator[Document]:
  seen = set()
  for name, text in documents:
    digest = hashlib.sha256(text).digest()
    if len(text) >= MIN_DOCUMENT_BYTES and digest not in seen:
      seen.add(digest)
      yield name, text


def collect(collector: Collector, cap_bytes: int) -> list[Document]:
  """Collects one domain, spread over as many documents as the cap allows.

  Identical documents and those below `MIN_DOCUMENT_BYTES` are dropped. First
  every document gives its first piece (64 kB, or 1/32 of the cap if that is
  less), then its second, until the cap is reached.

  Args:
    collector: one of `DOMAINS` or `SPARES`.
    cap_bytes: most bytes to return.

  Returns:
    Documents sorted by name.
  """
  piece = max(1, min(PIECE_BYTES, cap_bytes // 32))
  documents, first_pieces = [], 0
  for name, text in _distinct(collector()):
    documents.append((name, text))
    first_pieces += min(piece, len(text))
    if first_pieces >= cap_bytes:
      break
  sizes, left = [0] * len(documents), cap_bytes
  longest = max((len(text) for _, text in documents), default=0)
  for start in range(0, longest, piece):
    for i, (_, text) in enumerate(documents):
      taken = max(0, min(piece, len(text) - start, left))
      sizes[i] += taken
      left -= taken
  pairs = zip(documents, sizes, strict=True)
  return sorted((name, text[:size]) for (name, text), size in pairs if size)


def _shortage(documents: list[Document], min_bytes: int) -> str | None:
  size = sum(len(text) for _, text in documents)
  if size >= min_bytes and len(documents) >= MIN_DOCUMENTS:
    return None
  return (
    f"{size} bytes in {len(documents)} documents here, needs {min_bytes} "
    f"bytes in {MIN_DOCUMENTS}"
  )


def collect_domains(
  cap_bytes: int,
  min_bytes: int,
  *,
  domains: Mapping[str, Collector] = DOMAINS,
  spares: Mapping[str, Collector] = SPARES,
) -> tuple[dict[str, list[Document]], tuple[str, ...]]:
  """Collects all domains; one that is too small gives way to a spare.

  Args:
    cap_bytes: most bytes of a domain.
    min_bytes: fewest bytes of a domain.
    domains: name -> collector of the wanted domains, in the order of tasks.
    spares: name -> collector of those that step in, in this order.

  Returns:
    A dict from a domain's name to its documents (a spare stands in the place
    of the domain that it replaces), and messages about replaced, unfit and
    left-out domains.
  """
  collected, messages, spares = {}, [], iter(spares.items())
  for name, collector in domains.items():
    documents = collect(collector, cap_bytes)
    shortage, used = _shortage(documents, min_bytes), name
    if shortage:
      messages.append(f"domain {name!r}: {shortage}")
    while shortage:
      used, collector = next(spares, (None, None))
      if used is None:
        messages.append(f"domain {name!r} is left out: no spare domain is left")
        break
      documents = collect(collector, cap_bytes)
      shortage = _shortage(documents, min_bytes)
      outcome = f"is unfit: {shortage}" if shortage else f"replaces {name!r}"
      messages.append(f"spare domain {used!r} {outcome}")
    if used is not None:
      collected[used] = documents
  return collected, tuple(messages)
