"""The README's tables and figures of a run of the compression study.

  python -m experiments.compress.readme_tables --name=quick \
    --run=runs/compress_quick --write

Keeps what they show in `quick.json` beside the README; without `--run` they are
made from that file. Several runs of one model, a comma list, each give the
stages that they ran. Names are those of the README's markers.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from absl import app, flags

from experiments.common import readme_block
from experiments.compress import tables
from experiments.compress.stages import WHOLE
from tanbr_jax.report import workdir as reporting

# Names, and the figures that the README shows of each.
NAMES = {
  "quick": (),
  "gpu": ("effects.png", "truth.png"),
  "smollm2": (),
  "fine": (),
}
# The sparsity that is shown in full, and the scopes.
_AT = "0.5"
_SCOPES = ("specialist", "generalist by tokens")
_FEW = ("0.25", "0.5")  # cuts of the generalists that are shown
_UNION = "(union of specialists)"


class _Column(NamedTuple):
  """A column of the scores' table.

  Attributes:
    title: above it.
    scope: of the methods' keys; "" for the truth.
    cut: the share that is cut, of the methods.
    key: the last part of the summary's keys.
    factor: of its values.
    digits: decimals.
    has_interval: whether the interval is shown: of all it would be too much.
  """

  title: str
  scope: str
  cut: str
  key: str
  factor: float = 1
  digits: int = 2
  has_interval: bool = False

  def cell(self, summary: Mapping[str, Any], name: str) -> str:
    """The text of a score."""
    scope = self.scope
    if name == _UNION:
      if scope != _SCOPES[1]:
        return "-"
      scope, name = "union", "peu"
    key = f"methods/{scope}/{self.cut}/{name}/{self.key}"
    if not scope:
      key = f"truth/{name}/{self.key}"
    if not self.has_interval:
      summary = {key: summary.get(key)}
    return tables.cell(summary, key, self.factor, self.digits)


def _columns(cuts: Sequence[str]) -> list[_Column]:
  one, all_ = _SCOPES
  points = "accuracy_in_change", 100, 1
  share = lambda cut: f"{100 * float(cut):g} %"  # noqa: E731
  return [
    *(_Column(share(c), one, c, *points, c == _AT) for c in cuts),
    _Column("loss", one, _AT, "loss_in_change", 1, 3, True),
    _Column("continued", one, _AT, "match_in"),
    _Column("out of domain", one, _AT, "accuracy_out_change", 100, 1),
    *(
      _Column(f"all domains, {share(c)}", all_, c, *points, c == _AT)
      for c in cuts
      if c in _FEW
    ),
    _Column("truth", "", "", "rho"),
    _Column("truth, per token", "", "", "rho_per_token"),
  ]


def collect(folders: Path) -> dict[str, Any]:
  """What the tables show, of the folders of one model's runs, a comma list."""
  summary, seeds = {}, {}
  runs = [Path(name) for name in str(folders).split(",")]
  for run in runs:
    summary |= tables.collect(run)
    for stage in tables.load(run):
      seeds[stage] = len(list(run.glob(f"{stage}-*.json")))
  configs = [reporting.read_json(run / reporting.CONFIG) for run in runs]
  about = [
    {name: one[name] for name in ("corpus_fingerprint", "versions", "device")}
    for one in configs
  ]
  if any(one != about[0] for one in about):
    raise ValueError(f"runs differ in text, versions or device: {about}")
  return {
    "summary": {
      key: _rounded(value)
      for key, value in summary.items()
      if _is_shown(key.split("/"))
    },
    "seeds": seeds,
    **about[0],
  }


def _rounded(value: Any) -> Any:
  return float(f"{value:.5g}") if isinstance(value, float) else value


def _is_shown(parts: Sequence[str]) -> bool:
  if parts[0] == "merging":
    return False
  if parts[0] == "truth":
    return len(parts) == 3  # not by layer
  if parts[0] != "methods":
    return parts[0] != "samples" or "accuracy" in parts[-1]
  _, scope, sparsity, method, key = parts
  if method.startswith("("):
    return key in ("loss_in", "accuracy_in")
  if sparsity == _AT and scope in _SCOPES:
    return "change" in key or key.startswith("match")
  return key.startswith("accuracy_in_change") and "domains" not in scope


def to_markdown(kept: Mapping[str, Any]) -> str:
  """All tables, with what they were measured with."""
  summary, seeds = kept["summary"], kept["seeds"]
  cuts = _cuts(summary)
  about = ", ".join(f"{stage} {count}" for stage, count in seeds.items())
  parts = [
    f"jax {kept['versions']['jax']}, {kept['device']}; calibration seeds: "
    f"{about}. Means over domains, in brackets 95 % intervals over the seeds."
  ]
  if cuts:
    parts[0] += (
      f" The whole model's loss is {_whole(summary, 'loss_in')} nats a token, "
      f"its accuracy {_whole(summary, 'accuracy_in')}; the first seed's "
      f"calibration reads {summary['calibration/tokens']:,} tokens in "
      f"{summary['calibration/seconds']:.0f} s, compilation included."
    )
    parts.append(_scores(summary, cuts))
  for title, table in (
    (
      "Calibration windows of a domain: accuracy in it at 50 %",
      tables.pivot(summary, "samples", "accuracy_in", sort=int),
    ),
    (
      "Calibration text: accuracy in the domain at 50 %",
      tables.pivot(summary, "own_text", "accuracy_in"),
    ),
    (
      "Headroom of PEU's specialists at 50 %",
      tables.headroom(summary),
    ),
    ("Costs", tables.costs(summary)),
    ("Domains' best experts by PEU", tables.overlap(summary)),
  ):
    if table is not None:
      parts += [f"**{title}**", table]
  return "\n\n".join(parts)


def _whole(summary: Mapping[str, Any], key: str) -> str:
  return f"{summary[f'methods/specialist/0/(all experts)/{key}']:.3f}"


def _cuts(summary: Mapping[str, Any]) -> list[str]:
  groups = tables.groups_of(summary, "methods", 2)
  found = {s for scope, s in groups if scope == "specialist" and float(s) > 0}
  return sorted(found, key=float)


def _scores(summary: Mapping[str, Any], cuts: Sequence[str]) -> str:
  """A row for each score: specialists, generalists, the truth."""
  groups = tables.groups_of(summary, "methods", 2)
  names = [name for found in groups.values() for name in found]
  names += [name for (name,) in tables.groups_of(summary, "truth", 1)]
  names = [name for name in dict.fromkeys(names) if name != WHOLE]
  if any(scope == "union" for scope, _ in groups):
    names.append(_UNION)
  place = lambda name: summary.get(  # noqa: E731
    f"methods/{_SCOPES[0]}/{_AT}/{name}/loss_in_change", np.inf
  )
  columns = _columns(cuts)
  lines = [
    [name, *(column.cell(summary, name) for column in columns)]
    for name in sorted(names, key=place)
  ]
  return readme_block.table(["score", *(c.title for c in columns)], lines)


def main(argv: Sequence[str]) -> None:
  name = flags.FLAGS.name
  if name not in NAMES:
    raise app.UsageError(f"name must be one of {tuple(NAMES)}, got {name!r}")
  results = Path(__file__).with_name(f"{name}.json")
  readme_block.main(argv, name, results, collect=collect, text=to_markdown)
  if flags.FLAGS.write:
    summary = reporting.read_json(results)["summary"]
    tables.draw_figures(results.parent, summary, f"{name}_", only=NAMES[name])


if __name__ == "__main__":
  readme_block.define_flags("Folder of a finished run.")
  flags.DEFINE_string("name", "quick", "Of the README's markers.")
  app.run(main)
