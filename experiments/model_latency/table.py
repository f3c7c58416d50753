"""The table of one model's latency and memory, in Markdown."""

from collections.abc import Mapping
from typing import Any

from experiments.common import readme_block
from experiments.model_latency.programs import (
  BATCH,
  FORMS,
  HALF,
  MERGED,
  PAIRS,
  ROUTED,
  Sizes,
)

BOTH = "both"
TITLES = {
  ROUTED: "routed",
  PAIRS: "masked, share of pairs",
  HALF: "masked, half the experts",
  MERGED: "merged",
  BOTH: "merged, routed kept",
}
# Han et al., arXiv 2509.19781 (2025): abstract, and the figures of inference.
PAPER = (
  "The paper (T5-base x 8, A100): latency at least -45 % (-65 % against its "
  "learnt and Switch routers), memory -20 to -25 %."
)


def time_key(form: str, batch_size: int) -> str:
  """The summary's key of a time: of a batch, or of one decoded token."""
  if batch_size == BATCH:
    return f"{form}/batch_ms"
  return f"{form}/decode_{batch_size}_ms"


def markdown(name: str, found: Mapping[str, Any], sizes: Sizes) -> str:
  """Lines of Markdown: a row a form, its change against routed in brackets.

  Args:
    name: the model's.
    found: the figures, flat.
    sizes: of the run.
  """
  counts = sizes.decode_batch_sizes
  columns = {f"batch {sizes.batch_size} x {sizes.length}, ms": BATCH} | {
    f"decode B={count}, ms/token": count for count in counts
  }
  memory = {
    "experts, GB": "expert_bytes",
    "parameters, GB": "parameter_bytes",
    "peak, GB": "peak_bytes",
    "planned, GB": "batch_plan_bytes",
  }
  lines = [
    f"**{name}**, {found['num_layers']} layers; one merge "
    f"{found['merge/merge_ms']:.3g} ms (floor "
    f"{found['merge/merge_floor_ms']:.2g}); medians of {found['repeats']}; "
    f"ceilings: {found['ceilings']}",
    "",
  ]
  rows = []
  for form in (*FORMS, BOTH):
    cells = [TITLES[form]]
    for count in columns.values():
      timed = time_key(MERGED if form == BOTH else form, count)
      cells.append(_milliseconds(found, timed, time_key(ROUTED, count)))
    for key in memory.values():
      cells.append(
        _gigabytes(found.get(f"{form}/{key}"), found[f"{ROUTED}/{key}"])
      )
    rows.append(cells)
  table = readme_block.table(["form", *columns, *memory], rows)
  return "\n".join([*lines, table, "", PAPER])


def _milliseconds(found: Mapping[str, Any], key: str, routed: str) -> str:
  floor = found[key.replace("_ms", "_floor_ms")]
  change = _change(found[key], found[routed])
  return f"{found[key]:.3g}{change}, floor {floor:.2g}"


def _gigabytes(value: float | None, routed: float | None) -> str:
  if value is None:
    return "-"
  return f"{value / 1e9:.3g}{_change(value, routed)}"


def _change(value: float, routed: float | None) -> str:
  if routed is None or value == routed:
    return ""
  return f" ({100 * (value / routed - 1):+.0f} %)"
