"""Parts of a README that are made from results, between two markers."""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from absl import flags

from tanbr_jax.checks.names import printable
from tanbr_jax.report import workdir
from tanbr_jax.storage import atomic


def markers(name: str) -> tuple[str, str]:
  """The lines before and after the part of that name."""
  return f"<!-- {name}:begin -->", f"<!-- {name}:end -->"


def block(readme: str, name: str) -> str:
  """The text between the markers.

  Raises:
    ValueError: if there is not one of each marker, in their order.
  """
  begin, end = _places(readme, name)
  return readme[begin:end].strip("\n")


def replace(readme: str, name: str, text: str) -> str:
  """The README with `text` between the markers; errors as in `block`."""
  begin, end = _places(readme, name)
  return f"{readme[:begin]}\n{text}\n{readme[end:]}"


def table(titles: list[str], lines: list[list[str]]) -> str:
  """A Markdown table; a cell is one line and may hold a bar."""
  rows = [titles, ["---"] * len(titles), *lines]
  rows = [[printable(c).replace("|", "\\|") for c in row] for row in rows]
  return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def define_flags(run: str) -> None:
  """Defines `--run`, described by `run`, and `--write`."""
  flags.DEFINE_string("run", "", run)
  flags.DEFINE_bool("write", False, "Put it between the README's markers.")


def main(
  argv: Sequence[str],
  name: str,
  results: Path,
  *,
  collect: Callable[[Path], dict[str, Any]],
  text: Callable[[dict[str, Any]], str],
) -> None:
  """Makes the part of that name from a run, or from the kept results.

  Results of a run of which no text can be made are not kept.

  Args:
    argv: of the command, without flags.
    name: of the markers.
    results: the file in which a run's results are kept, beside the README.
    collect: from a run's folder to what is kept.
    text: from what is kept to Markdown.
  """
  try:
    if len(argv) > 1:
      raise ValueError(f"unknown arguments {argv[1:]}")
    if flags.FLAGS.run:
      found = atomic.jsonable(collect(Path(flags.FLAGS.run)))
    elif results.exists():
      found = workdir.read_json(results)
    else:
      raise ValueError(f"no {results}: give --run")
    made = text(found)
    print(made)
    if flags.FLAGS.run:
      atomic.write_json(results, found)
    if flags.FLAGS.write:
      readme = results.with_name("README.md")
      atomic.write_text(readme, replace(readme.read_text("utf-8"), name, made))
  except (ValueError, OSError) as error:
    sys.exit(f"error: {error}")


def _places(readme: str, name: str) -> tuple[int, int]:
  first, last = markers(name)
  counts = readme.count(first), readme.count(last)
  begin, end = readme.find(first) + len(first), readme.find(last)
  if counts != (1, 1) or end < begin:
    raise ValueError(
      f"README must hold {first} and {last} once, got {counts[0]} and "
      f"{counts[1]} of them, or the wrong order"
    )
  return begin, end
