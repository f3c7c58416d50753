"""`report.html`: one file that opens offline, figures and all.

Everything in it comes from the run's folder, so that it can be written again
without running anything.
"""

import base64
import html
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tanbr_jax.checks.names import printable
from tanbr_jax.report import workdir as reporting
from tanbr_jax.storage import atomic, numerics

REPORT = "report.html"

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #222; background: #fff;
  max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.2rem; margin-top: 2.2rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .85rem; }
th, td { padding: .3rem .7rem; border-bottom: 1px solid #ddd; }
th { border-bottom: 2px solid #555; vertical-align: bottom; }
td + td, th + th { text-align: right; font-variant-numeric: tabular-nums; }
td + td { white-space: nowrap; }
td:first-child, th:first-child { text-align: left; }
tbody tr:hover { background: #f4f6f8; }
figure { margin: 1.5rem 0; } img { max-width: 100%; height: auto; }
figcaption { color: #444; font-size: .9rem; max-width: 48rem; }
details { margin: .6rem 0; } summary { cursor: pointer; }
code { font-size: .8rem; }
"""


class ReportFigure(NamedTuple):
  """A figure of a report.

  Attributes:
    file: the PNG's name in the run's folder.
    caption: what it shows; the axes, the band, the preset.
  """

  file: str
  caption: str


def write_report(
  workdir: str | os.PathLike[str],
  *,
  title: str,
  rows: Sequence[Mapping[str, str]],
  figures: Sequence[ReportFigure] = (),
  notes: Sequence[str] = (),
) -> Path:
  """Writes `report.html` from the files of a run's folder.

  Args:
    workdir: the folder; `config.json` and `summary.json` must be there.
    title: the page's title.
    rows: the main table, see `tables.rows`.
    figures: PNG files of the folder, in the order of the page.
    notes: paragraphs below the title.

  Returns:
    The path of the report.
  """
  workdir = Path(workdir)
  config = reporting.read_json(workdir / reporting.CONFIG)
  summary = reporting.read_json(workdir / reporting.SUMMARY)
  body = [
    f"<h1>{_escape(title)}</h1>",
    *(f"<p>{_escape(note)}</p>" for note in notes),
    "<h2>Results</h2>",
    _table(rows),
    *(_figure(workdir, figure) for figure in figures),
    "<h2>How it was run</h2>",
    _details("Configuration, versions and device", config, is_open=True),
    _details("Every number of summary.json", summary, is_open=False),
  ]
  path = workdir / REPORT
  atomic.write_text(path, _page(title, "\n".join(body)))
  return path


def _escape(text: str) -> str:
  return html.escape(printable(text))


def _page(title: str, body: str) -> str:
  return (
    '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
    '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
    f"<title>{_escape(title)}</title>\n<style>{_STYLE}</style></head>\n"
    f"<body>\n{body}\n</body></html>\n"
  )


def _table(rows: Sequence[Mapping[str, str]]) -> str:
  if not rows:
    return "<p>No method has finished.</p>"
  titles = list(rows[0])
  head = "".join(f"<th>{_escape(title)}</th>" for title in titles)
  lines = [
    "".join(f"<td>{_escape(row.get(title, ''))}</td>" for title in titles)
    for row in rows
  ]
  body = "\n".join(f"<tr>{line}</tr>" for line in lines)
  return (
    f'<div class="scroll"><table><thead><tr>{head}</tr></thead>\n'
    f"<tbody>\n{body}\n</tbody></table></div>"
  )


def _figure(workdir: Path, figure: ReportFigure) -> str:
  data = base64.b64encode((workdir / figure.file).read_bytes()).decode("ascii")
  caption = _escape(figure.caption)
  return (
    f'<figure><img alt="{caption}" src="data:image/png;base64,{data}">\n'
    f"<figcaption>{caption}</figcaption></figure>"
  )


def _details(title: str, values: Mapping[str, Any], *, is_open: bool) -> str:
  rows = [
    {"field": name, "value": _text(value)}
    for name, value in numerics.flatten(values).items()
  ]
  state = " open" if is_open else ""
  return (
    f"<details{state}><summary>{_escape(title)}</summary>\n"
    f"{_table(rows)}</details>"
  )


def _text(value: Any) -> str:
  return f"{value:.6g}" if isinstance(value, float) else str(value)
