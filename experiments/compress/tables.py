"""Tables, CSV files, figures and the summary of a run, from its files alone."""

import csv
import io
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.common import drawing, readme_block
from experiments.compress import figures, merging_tables
from experiments.compress.stages import STAGES, WHOLE
from tanbr_jax.online import estimates
from tanbr_jax.online.estimates import Estimate
from tanbr_jax.report import workdir as reporting
from tanbr_jax.storage import atomic

TABLES = "tables.md"
Row = dict[str, Any]
# Columns of the methods' tables: key, title, factor, decimals.
_EFFECTS = (
  ("loss_in_change", "loss, in", 1, 3),
  ("accuracy_in_change", "accuracy points, in", 100, 1),
  ("loss_out_change", "loss, out", 1, 3),
  ("accuracy_out_change", "accuracy points, out", 100, 1),
  ("match_in", "continuation kept, in", 1, 3),
  ("match_out", "continuation kept, out", 1, 3),
)


def write(folder: Path) -> None:
  """Writes everything that is made of the stages' files, prints the tables."""
  stages = load(folder)
  for stage, rows in stages.items():
    atomic.write_text(folder / f"{stage}.csv", to_csv(rows))
  made = collect(folder)
  text = to_markdown(made)
  atomic.write_text(folder / TABLES, text + "\n")
  reporting.write_summary(folder, made)
  draw_figures(folder, made)
  print(text)


def draw_figures(
  folder: Path,
  summary: Mapping[str, Any],
  prefix: str = "",
  *,
  only: Sequence[str] = tuple(figures.FIGURES),
) -> None:
  """Writes the figures that the summary has something for.

  Args:
    folder: where.
    summary: of `collect`.
    prefix: of the files' names.
    only: which of `figures.FIGURES`.
  """
  for name in only:
    needed, draw = figures.FIGURES[name]
    if any(key.startswith(needed) for key in summary):
      with drawing.surviving(name):
        draw(folder / f"{prefix}{name}", summary)


def load(folder: Path) -> dict[str, list[Row]]:
  """The rows of every stage, of all seeds that are there."""
  found: dict[str, list[Row]] = {}
  for stage in STAGES:
    paths = folder.glob(f"{stage}-*.json")
    seeds = sorted(
      int(m[1])
      for path in paths
      if (m := re.fullmatch(rf"{stage}-(\d+)\.json", path.name))
    )
    for seed in seeds:
      value = atomic.read_json(folder / f"{stage}-{seed}.json", strict=True)
      found.setdefault(stage, []).extend(value["rows"])
  return found


def to_csv(rows: Sequence[Row]) -> str:
  """All rows, with the columns of any of them."""
  titles = list(dict.fromkeys(name for row in rows for name in row))
  text = io.StringIO()
  writer = csv.DictWriter(text, titles, lineterminator="\n")
  writer.writeheader()
  writer.writerows(rows)
  return text.getvalue()


def collect(folder: Path) -> dict[str, Any]:
  """The summary: flat keys, means over domains with intervals over seeds."""
  stages = load(folder)
  summary: dict[str, Any] = {}
  rows = with_changes(stages.get("methods", []))
  keys = ("loss_in", "accuracy_in", *(key for key, *_ in _EFFECTS))
  summary |= _estimates(rows, "methods", ("scope", "sparsity", "method"), keys)
  for stage, by in (("samples", "samples"), ("own_text", "text")):
    summary |= _estimates(
      stages.get(stage, []), stage, ("method", by), ("loss_in", "accuracy_in")
    )
  summary |= _truth(stages.get("truth", []))
  headroom_rows = stages.get("headroom", [])
  shared = [row for row in headroom_rows if "overlap_of" in row]
  summary |= _estimates(
    shared, "overlap", ("overlap_of",), ("overlap", "overlap_by_chance")
  )
  summary |= _estimates(
    to_changes([row for row in headroom_rows if "method" in row]),
    "headroom",
    ("method", "trained"),
    (*("pairs_kept", "gates_kept"), *("loss_in_change", "accuracy_in_change")),
  )
  summary |= merging_tables.entries(stages.get("merging", []))
  for row in stages.get("costs", []):
    name = f"sparsity {row['sparsity']:g}"
    summary |= {f"costs/{name}/{key}": value for key, value in row.items()}
  for path in sorted((folder / "statistics").glob("*.json"))[:1]:
    about = atomic.read_json(path)
    summary |= {f"calibration/{key}": value for key, value in about.items()}
  return summary


def with_changes(rows: Sequence[Row]) -> list[Row]:
  """The rows with their differences from the whole model's."""
  whole = {row["domain"]: row for row in rows if row["method"] == WHOLE}
  found = []
  for row in rows:
    before = whole[row["domain"]]
    changes = {
      f"{key}_change": row[key] - before[key]
      for key in ("loss_in", "accuracy_in", "loss_out", "accuracy_out")
      if key in row
    }
    found.append(row | changes)
  return found


def to_changes(rows: Sequence[Row]) -> list[Row]:
  """Rows of the stage "headroom", less the untrained whole model's."""
  whole = {
    (row["seed"], row["domain"]): row
    for row in rows
    if row["method"] == WHOLE and row["trained"] == "-"
  }
  keys = ("loss_in", "accuracy_in")
  return [
    row
    | {
      f"{k}_change": row[k] - whole[row["seed"], row["domain"]][k] for k in keys
    }
    for row in rows
  ]


def _estimates(
  rows: Sequence[Row],
  stage: str,
  by: Sequence[str],
  keys: Sequence[str],
) -> dict[str, float]:
  """Means over the domains of each seed, then intervals over the seeds."""
  groups: dict[str, list[Row]] = {}
  for row in rows:
    name = "/".join(_text(row[part]) for part in by)
    groups.setdefault(f"{stage}/{name}", []).append(row)
  summary = {}
  for name, group in groups.items():
    for key in keys:
      found = _over_seeds(group, key)
      if found is not None:
        summary |= reporting.estimate_entries(f"{name}/{key}", found)
  return summary


def _over_seeds(rows: Sequence[Row], key: str) -> Estimate | None:
  by_seed: dict[int, list[float]] = {}
  for row in rows:
    if row.get(key) is not None:
      by_seed.setdefault(row["seed"], []).append(row[key])
  if not by_seed:
    return None
  return estimates.mean(np.array([np.mean(v) for v in by_seed.values()]))


def _truth(rows: Sequence[Row]) -> dict[str, float]:
  """Rank correlations: means over layers, and by layer."""
  keys = ("rho", "rho_per_token", "rho_generalist")
  summary = _estimates(rows, "truth", ("method",), keys)
  by_layer = [row | {"layer": f"layer {row['layer']}"} for row in rows]
  return summary | _estimates(by_layer, "truth", ("method", "layer"), ("rho",))


def _text(value: Any) -> str:
  return f"{value:g}" if isinstance(value, float) else str(value)


def to_markdown(summary: Mapping[str, Any]) -> str:
  """All tables of a summary."""
  parts = [
    *_method_tables(summary),
    *_part(
      "Calibration windows of a domain, at 50 %: accuracy in the domain",
      pivot(summary, "samples", "accuracy_in", sort=int),
    ),
    *_part(
      "Calibration text, at 50 %: accuracy in the domain",
      pivot(summary, "own_text", "accuracy_in"),
    ),
    *_part("Rank correlation with the loss without an expert", _rho(summary)),
    *_part("Specialists at 50 %: headroom", headroom(summary)),
    *_part("Costs", costs(summary)),
    *_part("Overlap of domains' best experts", overlap(summary)),
    *merging_tables.parts(summary, cell),
  ]
  return "\n\n".join(parts)


def _part(title: str, table: str | None) -> list[str]:
  return [] if table is None else [f"**{title}**", table]


def _method_tables(summary: Mapping[str, Any]) -> list[str]:
  groups = groups_of(summary, "methods", 2)
  parts = []
  for scope, sparsity in groups:
    names = groups[scope, sparsity]
    lines = [
      [name]
      + [
        cell(
          summary, f"methods/{scope}/{sparsity}/{name}/{key}", factor, digits
        )
        for key, _, factor, digits in _EFFECTS
      ]
      for name in sorted(
        names,
        key=lambda n: summary[f"methods/{scope}/{sparsity}/{n}/loss_in_change"],
      )
    ]
    shown = [
      i
      for i in range(1, len(_EFFECTS) + 1)
      if any(line[i] != "-" for line in lines)
    ]
    titles = ["method", *(_EFFECTS[i - 1][1] for i in shown)]
    title = f"{scope}, {100 * float(sparsity):g} % of the experts cut"
    if float(sparsity) > 0:
      lines = [[line[0], *(line[i] for i in shown)] for line in lines]
      parts += _part(title, readme_block.table(titles, lines))
  return parts


def groups_of(
  summary: Mapping[str, Any], stage: str, depth: int
) -> dict[tuple[str, ...], list[str]]:
  """The names that follow `depth` parts of a stage's keys, by these parts."""
  found: dict[tuple[str, ...], dict[str, None]] = {}
  for key in summary:
    first, *parts = key.split("/")
    if first == stage and len(parts) > depth + 1:
      found.setdefault(tuple(parts[:depth]), {})[parts[depth]] = None
  return {group: list(names) for group, names in found.items()}


def cell(
  summary: Mapping[str, Any], key: str, factor: float = 1, digits: int = 3
) -> str:
  """An estimate with its interval, "-" where there is none."""
  value = summary.get(key)
  if value is None or not np.isfinite(value):
    return "-"
  text = f"{factor * value:.{digits}f}"
  ends = [summary.get(f"{key}_{end}") for end in ("low", "high")]
  if any(end is None or not np.isfinite(end) for end in ends):
    return text
  low, high = (f"{factor * end:.{digits}f}" for end in ends)
  return f"{text} [{low}, {high}]"


def pivot(
  summary: Mapping[str, Any],
  stage: str,
  key: str,
  *,
  sort: Callable[[str], Any] | None = None,
) -> str | None:
  """A row for each method, a column for each second name."""
  groups = groups_of(summary, stage, 1)
  if not groups:
    return None
  columns = list(dict.fromkeys(n for names in groups.values() for n in names))
  if sort is not None:
    columns.sort(key=sort)
  lines = [
    [method, *(cell(summary, f"{stage}/{method}/{c}/{key}") for c in columns)]
    for (method,) in groups
  ]
  return readme_block.table(["method", *columns], lines)


def _rho(summary: Mapping[str, Any]) -> str | None:
  groups = groups_of(summary, "truth", 1)
  if not groups:
    return None
  layers = sorted(
    {n for names in groups.values() for n in names if n.startswith("layer ")},
    key=lambda name: int(name.split()[1]),
  )
  keys = ("rho", "rho_per_token", "rho_generalist")
  order = sorted(
    (method for (method,) in groups),
    key=lambda m: -(summary.get(f"truth/{m}/rho") or -1),
  )
  lines = [
    [m]
    + [cell(summary, f"truth/{m}/{key}", 1, 2) for key in keys]
    + [
      # The value alone: intervals of all layers would not fit.
      cell({"rho": summary.get(f"truth/{m}/{layer}/rho")}, "rho", 1, 2)
      for layer in layers
    ]
    for m in order
  ]
  titles = ["score", "specialists", "per token", "generalist", *layers]
  return readme_block.table(titles, lines)


def headroom(summary: Mapping[str, Any]) -> str | None:
  """What keeps specialists from the whole model; None without the stage."""
  lines = [
    [
      method,
      trained,
      *(
        cell(summary, f"headroom/{method}/{trained}/{key}", factor, digits)
        for key, factor, digits in (
          ("pairs_kept", 100, 1),
          ("gates_kept", 100, 1),
          ("accuracy_in_change", 100, 1),
          ("loss_in_change", 1, 3),
        )
      ),
    ]
    for (method,), names in groups_of(summary, "headroom", 1).items()
    for trained in names
  ]
  titles = ["experts", "trained", "pairs kept, %", "gates kept, %"]
  titles += ["accuracy points", "loss"]
  return readme_block.table(titles, lines) if lines else None


def costs(summary: Mapping[str, Any]) -> str | None:
  """Bytes, distinct experts and decode times; None without the stage."""
  names = groups_of(summary, "costs", 0).get((), [])
  if not names:
    return None
  get = lambda name, key: summary.get(f"costs/{name}/{key}")  # noqa: E731
  whole = names[0]
  batches = sorted(
    int(m[1])
    for key in summary
    if (m := re.fullmatch(rf"costs/{re.escape(whole)}/distinct_(\d+)", key))
  )
  titles = ["experts cut", "experts of a layer", "expert bytes", "all bytes"]
  has_files = get(whole, "file_bytes") is not None
  titles += ["file bytes"] * has_files
  for batch in batches:
    titles += [f"distinct experts, B = {batch}", f"ms a step, B = {batch}"]
  lines = []
  for name in names:
    line = [
      f"{100 * get(name, 'sparsity'):g} %",
      str(get(name, "num_experts")),
      f"{get(name, 'expert_bytes'):,}",
      f"{get(name, 'bytes'):,}",
    ]
    line += [f"{get(name, 'file_bytes'):,}"] if has_files else []
    for batch in batches:
      low, high = (get(name, f"decode_ms_{batch}_{e}") for e in ("low", "high"))
      line += [
        f"{get(name, f'distinct_{batch}'):.1f}",
        f"{get(name, f'decode_ms_{batch}'):.2f} [{low:.2f}, {high:.2f}]",
      ]
    lines.append(line)
  return readme_block.table(titles, lines)


def overlap(summary: Mapping[str, Any]) -> str | None:
  """The domains' shared experts; None without the stage "headroom"."""
  names = groups_of(summary, "overlap", 0).get((), [])
  lines = [
    [f"best {name}"]
    + [
      cell(summary, f"overlap/{name}/{key}")
      for key in ("overlap", "overlap_by_chance")
    ]
    for name in sorted(names, key=int)
  ]
  titles = ["experts", "shared by two domains", "chance"]
  return readme_block.table(titles, lines) if lines else None
