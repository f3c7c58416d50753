"""Writes a folder of tasks: manual pages by language, and built-in domains.

  for language in de es fr pl; do
    apt-get download manpages-$language
    dpkg -x manpages-${language}_*.deb pages
  done
  python -m experiments.upcycle.manual_pages --pages=pages/usr/share/man \
    --out=text

More contrast than the built-in domains have among themselves: Debian's manual
pages in German, Spanish, French and Polish, as plain text, a task a language,
beside some of the domains, each of at most two million bytes.
`--config.data.path=text` of `experiments.upcycle` and of
`experiments.online_merging` then reads it.
"""

import gzip
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from absl import app, flags

from experiments.common import launch
from tanbr_jax.data import domains, sources
from tanbr_jax.data.sources import Document

CAP_BYTES = 2_000_000
DOMAINS = "python,prose,c,unicode"

# What roff(7) writes in other ways than text does.
_FONT = re.compile(r"\\f(?:\[[^]]*\]|\(..|.)|\\s[-+]?\d+|\\[,/&|^:%c]")
_NAMED = re.compile(r"\\(?:\((..)|\[([^]]+)\])")
_CHARACTERS = {
  **{"aq": "'", "cq": "'", "oq": "`", "dq": '"', "lq": '"', "rq": '"'},
  **{"em": "-", "en": "-", "hy": "-", "mi": "-", "bu": "*", "ha": "^"},
  **{"ti": "~", "rs": "\\", "ga": "`", "co": "(c)", "Fo": "\u00ab"},
  "Fc": "\u00bb",
}
_REQUEST = re.compile(r"^[.'][ \t]*([A-Za-z]*)[ \t]*(.*)$")
# Requests whose arguments are text; those of all others are settings.
_TEXT_REQUESTS = frozenset(
  "SH SS B I BI BR IB IR RB RI SB SM TP IP TH"
  " Nm Nd Sh Ss Op Ar Fl Cm Pa Xr".split()
)


def plain_text(page: str) -> str:
  """The text of a manual page in roff, without its comments and requests."""
  lines = []
  for line in page.splitlines():
    if line.startswith(('.\\"', "'\\\"")):
      continue
    if request := _REQUEST.match(line):
      name, line = request.groups()
      if name not in _TEXT_REQUESTS:
        continue
      line = line.replace('"', "")
      if name in ("SH", "SS", "TP", "IP", "Sh", "Ss"):
        lines.append("")
    line = _FONT.sub("", line.replace("\\-", "-").replace("\\e", "\\\\"))
    line = _NAMED.sub(lambda m: _CHARACTERS.get(m[1] or m[2], ""), line)
    lines.append(line.replace("\\ ", " ").replace("\\~", " ").strip())
  return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip()


def pages(folder: Path) -> Iterator[Document]:
  """Yields a language's pages in the order of their names' hashes."""
  found = {
    path.relative_to(folder).as_posix(): path
    for path in folder.glob("man*/*.gz")
    if path.is_file() and not path.is_symlink()
  }
  for name in sorted(found, key=sources.name_key):
    page = gzip.decompress(found[name].read_bytes()).decode("utf-8", "replace")
    yield name, plain_text(page).encode()


def write(folder: Path, documents: Sequence[Document]) -> int:
  """Writes a task's documents; returns their bytes."""
  for name, text in documents:
    path = folder / f"{name.replace('/', '_')}.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text)
  return sum(len(text) for _, text in documents)


def run(root: Path, out: Path, names: Sequence[str]) -> None:
  """Writes every language below the root, and the named domains.

  Raises:
    ValueError: there are no pages, or there is something where they would go.
  """
  languages = sorted(path for path in root.glob("*") if any(path.glob("man*")))
  if not languages:
    raise ValueError(f"pages must hold LANGUAGE/man*/, got {str(root)!r}")
  if out.exists():
    raise ValueError(f"out must not be there yet, got {str(out)!r}")
  tasks = {path.name: lambda p=path: pages(p) for path in languages}
  tasks |= {name: domains.DOMAINS[name] for name in names}
  for task, collector in tasks.items():
    size = write(out / task, domains.collect(collector, CAP_BYTES))
    print(f"{task}: {size:,} bytes")


def main(argv: Sequence[str]) -> None:
  with launch.guarded():
    if len(argv) > 1:
      raise ValueError(f"unknown arguments {argv[1:]}")
    given = flags.FLAGS
    names = launch.names(given.domains, known=domains.DOMAINS, kind="domain")
    run(Path(given.pages), Path(given.out), names)


if __name__ == "__main__":
  flags.DEFINE_string("pages", None, "Manual pages by language.", required=True)
  flags.DEFINE_string("out", None, "The folder to write.", required=True)
  flags.DEFINE_string("domains", DOMAINS, "Built-in domains beside them.")
  app.run(main)
