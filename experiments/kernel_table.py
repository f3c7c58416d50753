"""The kernel study's tables of merging and of MoE blocks, from its runs.

  python -m experiments.kernel_table --run=runs/kernels --write

With `--run`, the run's results are kept in `experiments/kernels/kernels.json`;
without, that file is used. Prints the tables; with `--write` also puts them
between the markers of the README beside it.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import app

from experiments.common import launch, readme_block
from experiments.kernels import targets as kernel_targets
from experiments.kernels.results import Lookup, Record
from experiments.kernels.shapes import SHAPES
from tanbr_jax.report import workdir

RESULTS = launch.ROOT / "experiments" / "kernels" / "kernels.json"
NAME = "kernels"  # Of the README's markers.
PARTS = ("route", "sort", "dispatch", "grouped_ffn", "combine")
PARTS_TOKENS = (16, 4096)
MOST_TIMES = 30  # Larger multiples are left out.


def collect(run: Path) -> dict[str, Any]:
  """The results in a run's folder.

  Raises:
    ValueError: there are none.
  """
  path = run / workdir.SUMMARY
  if not path.exists():
    raise ValueError(f"{run} has no {workdir.SUMMARY}: not a run")
  return workdir.read_json(path)


def text(results: Mapping[str, Any]) -> str:
  """All tables as Markdown, below a caption.

  Args:
    results: the benchmark's file.
  """
  lookup = Lookup(results)
  parts = [
    caption(results),
    merging(lookup),
    blocks(lookup),
    steps(lookup),
    reached(results),
  ]
  return "\n\n".join(part for part in parts if part)


def caption(results: Mapping[str, Any]) -> str:
  """Device, versions and ceilings."""
  runs = results["runs"]
  versions = ", ".join(
    f"{name} {runs[-1]['versions'][name]}"
    for name in ("jax", "torch", "transformers")
    if runs[-1]["versions"].get(name)
  )
  copy, read, matmul = (
    _span([run["ceilings"][name] / 1e12 for run in runs], digits)
    for name, digits in (("copy", 2), ("read", 2), ("matmul", 0))
  )
  calls = "the same run" if len(runs) == 1 else f"the same {len(runs)} runs"
  return (
    f"{results['device']}, bfloat16, {versions}; measured in {calls}: "
    f"copy {copy} TB/s, read {read} TB/s, matrix product {matmul} TFLOP/s. "
    "Device time of one call, median of calls that are queued. The floor is "
    "the larger of two times: bytes of the active experts and of the tokens "
    "over the bandwidth, operations over the matrix product's rate. Up to 128 "
    "tokens routed / merged compares for how long the GPU computed: the host "
    "queues such short calls more slowly."
  )


def _span(values: Sequence[float], digits: int) -> str:
  low, high = (f"{f(values):.{digits}f}" for f in (min, max))
  return low if low == high else f"{low} to {high}"


def merging(lookup: Lookup) -> str:
  """Bandwidths, experts read once and each result written once."""
  lines = []
  for name, shape in SHAPES.items():
    if lookup.record(name, None, "copy") is None:
      continue
    copy = kernel_targets.bandwidth(lookup, name, "copy")
    cells = [shape.title, f"{shape.matrix_bytes / 1e9:.2f}", _rate(copy)]
    for row in ("merge", "merge_16", "merge_einsum"):
      rate = kernel_targets.bandwidth(lookup, name, row)
      share = f" ({100 * rate / copy:.0f} %)" if rate == rate else ""
      cells.append(_rate(rate) + share)
    lines.append(cells)
  titles = ["one matrix of all experts", "GB", "copy, TB/s"]
  titles += ["one merge (of a copy)", "16 merges at once", "as einsum"]
  return readme_block.table(titles, lines) if lines else ""


def blocks(lookup: Lookup) -> str:
  """Microseconds of the MoE block, in brackets as multiples."""
  titles = ["MoE block, us", "tokens", "floor", "routed (x floor)"]
  titles += ["JAX's kernel", "PyTorch", "transformers"]
  titles += ["15 % of pairs (x its floor)", "merged (routed / merged)"]
  lines = []
  for name, tokens in _points(lookup):
    routed = lookup.record(name, tokens, "routed")
    if routed is None:
      continue
    cells = [SHAPES[name].title, f"{tokens:,}", _us(routed["floor_us"])]
    cells.append(_cell(routed, routed["x_floor"]))
    for peer in ("shipped", "torch", "transformers"):
      cells.append(_cell(lookup.fastest(name, tokens, peer)))
    masked = lookup.record(name, tokens, "masked")
    cells.append(_cell(masked, masked and masked["x_floor"]))
    merged = lookup.record(name, tokens, "merged")
    times = merged and lookup.speedup(name, tokens, "merged", "routed")
    lines.append([*cells, _cell(merged, times)])
  return readme_block.table(titles, lines) if lines else ""


def steps(lookup: Lookup) -> str:
  """Microseconds of the routed block's steps, each timed by itself."""
  lines = []
  for name, tokens in _points(lookup):
    found = [lookup.record(name, tokens, f"part/{part}") for part in PARTS]
    if tokens in PARTS_TOKENS and any(found):
      cells = [_cell(record, record and record["x_floor"]) for record in found]
      lines.append([SHAPES[name].title, f"{tokens:,}", *cells])
  titles = ["step, us (x its floor)", "tokens", "router and top-k"]
  titles += ["order by expert", "gather", "experts", "combine"]
  return readme_block.table(titles, lines) if lines else ""


def reached(results: Mapping[str, Any]) -> str:
  """The table of measured ratios beside their targets."""
  lines = [
    [
      target.title,
      f"{'at least' if target.is_least else 'at most'} {target.wanted:g}",
      f"{target.measured:.2f}",
      "yes" if target.is_met else "no",
    ]
    for target in kernel_targets.targets(results)
  ]
  titles = ["ratio", "wanted", "measured", "reached"]
  return readme_block.table(titles, lines) if lines else ""


def _points(lookup: Lookup) -> list[tuple[str, int]]:
  """In the order of `SHAPES`, from the fewest tokens on."""
  order = list(SHAPES)
  found = [(s, n) for s, n in lookup.points if n is not None and s in SHAPES]
  return sorted(found, key=lambda point: (order.index(point[0]), point[1]))


def _cell(record: Record | None, ratio: float | None = None) -> str:
  """A time, and its multiple unless that only says how small the floor is."""
  if record is None:
    return "-"
  text = _us(record["median_us"])
  if ratio is None or ratio > MOST_TIMES:
    return text
  return f"{text} ({ratio:.2f})"


def _us(value: float) -> str:
  return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


def _rate(value: float) -> str:
  return f"{value / 1e12:.2f}" if value == value else "-"


def main(argv: Sequence[str]) -> None:
  readme_block.main(argv, NAME, RESULTS, collect=collect, text=text)


if __name__ == "__main__":
  readme_block.define_flags("Folder of a run of the benchmark.")
  app.run(main)
