"""Tables of a summary's flat keys, for the terminal and for the report.

A key with `_low` and `_high` beside it is an estimate with its interval and is
shown as one cell.
"""

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from tanbr_jax.checks.names import printable
from tanbr_jax.storage import atomic


class Column(NamedTuple):
  """A column of a table.

  Attributes:
    key: last part of the summary's keys that it shows.
    title: its heading, unit included.
    digits: decimals; None shows four significant digits.
  """

  key: str
  title: str
  digits: int | None = None


def rows(
  summary: Mapping[str, Any],
  columns: Sequence[Column],
  *,
  methods: Sequence[str] | None = None,
) -> list[dict[str, str]]:
  """The table of a summary: a row a method, a column a quantity.

  Args:
    summary: flat keys `<method>/<quantity>`; a method may contain slashes.
    columns: which quantities; one that no method has is left out.
    methods: which methods, in this order; None for all that have any of the
      columns, in the order of the summary.

  Returns:
    Rows with every cell formatted.
  """
  summary = atomic.jsonable(summary)
  if methods is None:
    methods = dict.fromkeys(k.rpartition("/")[0] for k in summary if "/" in k)
  shown = [
    column
    for column in columns
    if any(summary.get(f"{m}/{column.key}") is not None for m in methods)
  ]
  return [
    {"method": method}
    | {column.title: _cell(summary, method, column) for column in shown}
    for method in methods
    if any(f"{method}/{column.key}" in summary for column in shown)
  ]


def format_rows(table: Sequence[Mapping[str, str]]) -> str:
  """Rows as text: the first column to the left, the others to the right."""
  if not table:
    return ""
  titles = list(table[0])
  cells = [[row.get(title, "") for title in titles] for row in table]
  lines = [list(map(printable, line)) for line in (titles, *cells)]
  widths = [max(len(line[i]) for line in lines) for i in range(len(titles))]
  lines.insert(1, ["-" * width for width in widths])
  return "\n".join(
    "  ".join(
      cell.ljust(width) if i == 0 else cell.rjust(width)
      for i, (cell, width) in enumerate(zip(line, widths, strict=True))
    ).rstrip()
    for line in lines
  )


def csv_line(names: Sequence[str]) -> str:
  """Any names as one value of a summary: printable, comma between them.

  A name with a comma or a quote is quoted, as in CSV (RFC 4180).
  """
  line = io.StringIO()
  csv.writer(line, lineterminator="").writerow(map(printable, names))
  return line.getvalue()


def read_csv_line(line: str) -> list[str]:
  """The names of `csv_line`."""
  return next(csv.reader([line]))


def print_rows(table: Sequence[Mapping[str, str]]) -> None:
  """Prints `format_rows(table)` on stdout."""
  print(format_rows(table))


def _cell(summary: Mapping[str, Any], method: str, column: Column) -> str:
  key = f"{method}/{column.key}"
  value = _number(summary.get(key), column.digits)
  low, high = summary.get(f"{key}_low"), summary.get(f"{key}_high")
  if low is None or high is None:
    return value
  ends = (_number(low, column.digits), _number(high, column.digits))
  return f"{value} [{ends[0]}, {ends[1]}]"


def _number(value: Any, digits: int | None) -> str:
  if value is None:
    return "-"
  if isinstance(value, (str, bool)):
    return str(value)
  if digits is not None:
    return f"{value:,.{digits}f}"
  return f"{value:,.4g}" if abs(value) < 1e4 else f"{value:,.0f}"
