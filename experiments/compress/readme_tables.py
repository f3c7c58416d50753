"""The README's tables of a run of the compression study.

  python -m experiments.compress.readme_tables --name=quick \
    --run=runs/compress_quick --write

Keeps what they show in `quick.json` beside the README; without `--run` they are
made from that file. Names are those of the README's markers.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import app, flags

from experiments.common import readme_block
from experiments.compress import tables
from tanbr_jax.report import workdir as reporting

NAMES = ("quick", "gpu", "smollm2")
_SCOPES = {
  "specialist": "Specialists",
  "generalist by tokens": "Generalists by tokens",
  "generalist by domains": "Generalists by domains",
  "union": "Unions of smaller specialists",
}
# The sparsity and the scopes whose effects are shown in full.
_AT = "0.5"
_IN_FULL = ("specialist", "generalist by tokens")


def collect(run: Path) -> dict[str, Any]:
  """What the tables show, of a run's folder."""
  summary = tables.collect(run)
  config = reporting.read_json(run / reporting.CONFIG)
  kept = {
    key: value for key, value in summary.items() if _is_shown(key.split("/"))
  }
  return {
    "summary": kept,
    "seeds": len(list(run.glob("methods-*.json"))),
    "corpus_fingerprint": config["corpus_fingerprint"],
    **{name: config[name] for name in ("versions", "device")},
  }


def _is_shown(parts: Sequence[str]) -> bool:
  if parts[0] != "methods":
    return parts[0] != "samples" or "accuracy" in parts[-1]
  _, scope, sparsity, method, key = parts
  if method.startswith("("):
    return key in ("loss_in", "accuracy_in")
  if sparsity == _AT and scope in _IN_FULL:
    return "change" in key or key.startswith("match")
  return key == "accuracy_in_change"


def to_markdown(kept: Mapping[str, Any]) -> str:
  """All tables, with what they were measured with."""
  summary = kept["summary"]
  parts = [
    f"Means over domains, in brackets 95 % intervals over {kept['seeds']} "
    f"calibration seeds; jax {kept['versions']['jax']}, {kept['device']}; the "
    f"whole model's loss is {_whole(summary, 'loss_in')} nats a token and its "
    f"accuracy {_whole(summary, 'accuracy_in')}; {_calibration(summary)}."
  ]
  for scope, title in _SCOPES.items():
    table = _by_sparsity(summary, scope)
    if table is not None:
      parts += [f"{title}: change of accuracy in the domain, points", table]
  # The other tables are those of the run itself.
  parts.append(tables.to_markdown(_in_full(summary)))
  return "\n\n".join(parts)


def _whole(summary: Mapping[str, Any], key: str) -> str:
  return f"{summary[f'methods/specialist/0/(all experts)/{key}']:.3f}"


def _calibration(summary: Mapping[str, Any]) -> str:
  tokens = summary.get("calibration/tokens")
  seconds = summary.get("calibration/seconds")
  if tokens is None:
    return "calibration is not timed"
  return (
    f"the first seed's calibration reads {tokens:,} tokens in {seconds:.0f} s, "
    "compilation included"
  )


def _by_sparsity(summary: Mapping[str, Any], scope: str) -> str | None:
  groups = tables.groups_of(summary, "methods", 2)
  cuts = sorted(
    (s for one, s in groups if one == scope and float(s) > 0), key=float
  )
  if not cuts:
    return None
  key = "accuracy_in_change"
  value = lambda cut, name: summary.get(  # noqa: E731
    f"methods/{scope}/{cut}/{name}/{key}"
  )
  names = sorted(
    groups[scope, cuts[0]], key=lambda name: -(value(cuts[-1], name) or -9)
  )
  lines = [
    [
      name,
      *(
        "-" if value(cut, name) is None else f"{100 * value(cut, name):.1f}"
        for cut in cuts
      ),
    ]
    for name in names
  ]
  titles = ["method", *(f"{100 * float(cut):g} % cut" for cut in cuts)]
  return readme_block.table(titles, lines)


def _in_full(summary: Mapping[str, Any]) -> dict[str, Any]:
  """The summary without what is shown by sparsity alone."""
  found = {}
  for key, value in summary.items():
    stage, scope, sparsity, *_ = *key.split("/"), "", ""
    if stage != "methods" or (scope in _IN_FULL and sparsity == _AT):
      found[key] = value
  return found


def main(argv: Sequence[str]) -> None:
  name = flags.FLAGS.name
  if name not in NAMES:
    raise app.UsageError(f"name must be one of {NAMES}, got {name!r}")
  results = Path(__file__).with_name(f"{name}.json")
  readme_block.main(argv, name, results, collect=collect, text=to_markdown)


if __name__ == "__main__":
  readme_block.define_flags("Folder of a finished run.")
  flags.DEFINE_string("name", "quick", "Of the README's markers.")
  app.run(main)
