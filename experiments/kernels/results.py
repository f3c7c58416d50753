"""The kernel benchmark's file: one record a row, and what was reached.

A record has `shape`, `tokens` (None for merging) and `row`, which together name
it, and either `error` or `median_us`, `low_us`, `high_us` (quartiles) of one
call, `timing` ("chain", "graph" or "queued"), `bytes` and `flops` (the least
that must be done), `floor_us` and `x_floor`. `all_experts_floor_us` is the
floor if all experts were read. `single_us` is a call that is a program of its
own, queued like the others, and `awaited_us` one that is waited for before the
next is dispatched; `busy_us` is for how long the GPU computes in a call, which
is less than the median where the host cannot queue calls that fast. `run` says
which of `runs` measured it: device, versions, ceilings, command; `busy_run` if
another one measured `busy_us`.
"""

import math
import operator
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from experiments.kernels.rows import Row
from experiments.kernels.shapes import Ceilings, floor_seconds
from tanbr_jax.report import workdir
from tanbr_jax.storage import atomic, lock
from tanbr_jax.timing.latency import Latency

Record = dict[str, Any]


class Results:
  """Records on disk, which later runs add to and replace."""

  def __init__(self, path: Path, *, run: Mapping[str, Any]) -> None:
    """Opens the file or begins it.

    Args:
      path: of the JSON file.
      run: `device`, `versions`, `ceilings` and `command` of this run.

    Raises:
      ValueError: the file holds results of another device, was damaged, or its
        folder is in use by another process.
    """
    lock.keep(lock.hold_folder(path.parent))
    self._path, self._device = path, run["device"]
    found = workdir.read_json(path) if path.exists() else {"rows": []}
    if (before := found.get("device", self._device)) != self._device:
      raise ValueError(
        f"{path} holds results of {before!r}, this is {self._device!r}"
      )
    self._runs = [*found.get("runs", []), dict(run)]
    self._rows = {key(record): record for record in found["rows"]}

  def add(self, records: Iterable[Record]) -> None:
    """Adds or replaces records, and writes the file."""
    for record in records:
      self._rows[key(record)] = record | {"run": len(self._runs) - 1}
    atomic.write_json(
      self._path,
      {
        "device": self._device,
        "runs": self._runs,
        "rows": list(self._rows.values()),
      },
    )


def key(record: Mapping[str, Any]) -> tuple[str, int | None, str]:
  """The name of a record: shape, tokens and row."""
  return record["shape"], record["tokens"], record["row"]


def timed(
  names: tuple[str, int | None, str],
  took: Latency,
  row: Row,
  ceilings: Ceilings,
  *,
  timing: str,
) -> Record:
  """The record of a row that was timed.

  Args:
    names: shape, tokens and row.
    took: milliseconds of one call.
    row: what was timed, or what it is to be compared with.
    ceilings: of this run.
    timing: how it was queued.
  """
  floor = 1e6 * floor_seconds(row.work, ceilings)
  found = dict(zip(("shape", "tokens", "row"), names, strict=True))
  found |= {
    "median_us": 1e3 * took.median,
    "low_us": 1e3 * took.low,
    "high_us": 1e3 * took.high,
    "timing": timing,
    "bytes": row.work.num_bytes,
    "flops": row.work.flops,
    "floor_us": floor,
    "x_floor": 1e3 * took.median / floor,
  }
  if row.all_experts is not None:
    every = floor_seconds(row.all_experts, ceilings)
    found["all_experts_floor_us"] = 1e6 * every
  return found


def failed(names: tuple[str, int | None, str], error: Exception) -> Record:
  """The record of a row that could not run."""
  lines = str(error).strip().splitlines() or [""]
  found = dict(zip(("shape", "tokens", "row"), names, strict=True))
  return found | {"error": f"{type(error).__name__}: {lines[0][:200]}"}


class Lookup:
  """Medians of a file's records."""

  def __init__(self, results: Mapping[str, Any]) -> None:
    """Indexes the records."""
    self._rows = {key(record): record for record in results["rows"]}

  def record(self, shape: str, tokens: int | None, row: str) -> Record | None:
    """The record of a row that was timed, or None."""
    found = self._rows.get((shape, tokens, row))
    return None if found is None or "error" in found else found

  def fastest(
    self, shape: str, tokens: int | None, prefix: str
  ) -> Record | None:
    """The fastest of the rows whose name is `prefix` or begins `prefix/`."""
    found = [
      record
      for (s, n, row), record in self._rows.items()
      if (s, n) == (shape, tokens)
      and "error" not in record
      and (row == prefix or row.startswith(f"{prefix}/"))
    ]
    return min(found, key=lambda r: r["median_us"], default=None)

  def value(
    self, shape: str, tokens: int | None, row: str, field: str = "median_us"
  ) -> float:
    """A number of a record; NaN if there is none."""
    record = self.record(shape, tokens, row)
    return math.nan if record is None else record[field]

  def speedup(self, shape: str, tokens: int, row: str, other: str) -> float:
    """The time of `other` over that of `row`, on the device."""
    field = "busy_us"
    if any(
      field not in (self.record(shape, tokens, r) or {}) for r in (row, other)
    ):
      field = "median_us"
    times = (self.value(shape, tokens, r, field) for r in (other, row))
    return operator.truediv(*times)

  @property
  def points(self) -> list[tuple[str, int | None]]:
    """Shapes and numbers of tokens that have any record, in their order."""
    return list(dict.fromkeys((shape, n) for shape, n, _ in self._rows))
