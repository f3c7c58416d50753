"""Parts of the README that are made from results, between two markers."""

from experiments import launch
from tanbr_jax import atomic

README = launch.ROOT / "README.md"


def markers(name: str) -> tuple[str, str]:
  """The lines before and after the part of that name."""
  return f"<!-- {name}:begin -->", f"<!-- {name}:end -->"


def block(readme: str, name: str) -> str:
  """What stands between the markers.

  Raises:
    ValueError: if there is not one of each marker, in their order.
  """
  begin, end = _places(readme, name)
  return readme[begin:end].strip("\n")


def replace(readme: str, name: str, text: str) -> str:
  """The README with `text` between the markers; errors as in `block`."""
  begin, end = _places(readme, name)
  return f"{readme[:begin]}\n{text}\n{readme[end:]}"


def write(name: str, text: str) -> None:
  """Puts `text` between the markers of README.md; errors as in `block`."""
  atomic.write_text(README, replace(README.read_text("utf-8"), name, text))


def table(titles: list[str], lines: list[list[str]]) -> str:
  """A Markdown table."""
  rows = [titles, ["---"] * len(titles), *lines]
  return "\n".join(f"| {' | '.join(row)} |" for row in rows)


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
