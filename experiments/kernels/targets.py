"""Targets of the kernels on a GPU, as ratios to what is beside them."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from experiments.kernels.results import Lookup
from experiments.kernels.shapes import SHAPES

LARGE = 100e6  # Bytes of a matrix of all experts from which merging counts.
MAIN = ("mixtral", "olmoe")


class Target(NamedTuple):
  """A ratio that was to be reached, and the one that was measured.

  Attributes:
    title: what is divided by what, and where.
    wanted: the ratio.
    is_least: whether it is the least to reach, or the most.
    measured: the ratio.
  """

  title: str
  wanted: float
  is_least: bool
  measured: float

  @property
  def is_met(self) -> bool:
    """Tells whether the measured ratio is on the right side."""
    if self.is_least:
      return self.measured >= self.wanted
    return self.measured <= self.wanted


def targets(results: Mapping[str, Any]) -> list[Target]:
  """All targets whose rows were measured.

  Args:
    results: the benchmark's file.
  """
  lookup = Lookup(results)
  found = [
    *_merging(lookup),
    *_routed(lookup, results["runs"]),
    *_against_torch(lookup),
    *_merged(lookup),
    *_masked(lookup),
  ]
  return [target for target in found if target.measured == target.measured]


def bandwidth(lookup: Lookup, shape: str, row: str) -> float:
  """Bytes per second of a merging row; NaN if it was not timed."""
  seconds = 1e-6 * lookup.value(shape, None, row)
  return lookup.value(shape, None, row, "bytes") / seconds


def _merging(lookup: Lookup) -> Iterator[Target]:
  for row, title, wanted in (
    ("merge", "one merge", 0.9),
    ("merge_16", "16 merges", 0.85),
  ):
    for name, shape in SHAPES.items():
      if shape.matrix_bytes > LARGE:
        copy = bandwidth(lookup, name, "copy")
        ratio = bandwidth(lookup, name, row) / copy
        text = f"{title} / copy, bandwidth, {shape.title}"
        yield Target(text, wanted, True, ratio)


def _routed(lookup: Lookup, runs: list[Mapping[str, Any]]) -> Iterator[Target]:
  for name in MAIN:
    title = SHAPES[name].title
    ratio = lookup.value(name, 4096, "routed", "x_floor")
    yield Target(f"routed / floor, 4,096 tokens, {title}", 1.5, False, ratio)
    record = lookup.record(name, 16, "routed")
    if record is not None:
      read = runs[record["run"]]["ceilings"]["read"]
      least = 1e6 * record["bytes"] / read
      yield Target(
        f"routed / reading the active experts, 16 tokens, {title}",
        1.15,
        False,
        record["median_us"] / least,
      )


def _against_torch(lookup: Lookup) -> Iterator[Target]:
  """The worst of all numbers of tokens, from 16 on."""
  for name, shape in SHAPES.items():
    ratios = [
      lookup.value(name, tokens, "routed") / torch["median_us"]
      for point, tokens in lookup.points
      if point == name and tokens is not None and tokens >= 16
      if (torch := lookup.fastest(name, tokens, "torch"))
    ]
    if ratios:
      text = f"routed / PyTorch's grouped block, worst size, {shape.title}"
      yield Target(text, 1.0, False, max(ratios))


def _merged(lookup: Lookup) -> Iterator[Target]:
  for name in MAIN:
    ratio = lookup.speedup(name, 16, "merged", "routed")
    text = f"routed / merged, 16 tokens, {SHAPES[name].title}"
    yield Target(text, 5.0, True, ratio)
  for name, shape in SHAPES.items():
    ratios = [
      1 / lookup.speedup(name, n, "merged", "routed")
      for point, n in lookup.points
      if point == name and lookup.record(name, n, "merged")
      if lookup.record(name, n, "routed")
    ]
    if ratios and shape.num_selected >= 2:
      text = f"merged / routed, worst size, {shape.title}"
      yield Target(text, 0.55, False, max(ratios))


def _masked(lookup: Lookup) -> Iterator[Target]:
  ratio = lookup.value("mixtral", 4096, "masked") / lookup.value(
    "mixtral", 4096, "routed"
  )
  title = SHAPES["mixtral"].title
  text = f"15 % of the pairs / routed, 4,096 tokens, {title}"
  yield Target(text, 0.3, False, ratio)
  ratio = lookup.value("olmoe", 4096, "masked", "x_floor")
  title = SHAPES["olmoe"].title
  text = f"15 % of the pairs / its floor, 4,096 tokens, {title}"
  yield Target(text, 1.5, False, ratio)
