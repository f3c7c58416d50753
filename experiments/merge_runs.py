"""Puts regret runs that played different streams or methods into one folder.

  python -m experiments.merge_runs --runs='runs/curves_parts/*' \
    --workdir=runs/curves

`--runs` is a comma list of run folders, each of which may be a pattern. The
runs must have the same config but for what splits the work (families, mixes,
bandits, settings) and what only decides the speed; then traces are joined by
name, the summary is made anew, since ratios need the baseline beside every
method, and figures, table and report are drawn. Run time: seconds a gigabyte.
"""

import glob
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import app, flags

from experiments.common import launch
from experiments.regret import comparison
from tanbr_jax.online import trace
from tanbr_jax.report import workdir as reporting
from tanbr_jax.storage import atomic, lock

# What may differ between runs, and the comma lists among them, whose names are
# joined.
_LISTS = ("families", "mixes", "bandits")
_MAY_DIFFER = (
  *_LISTS,
  "settings",
  "chunk_size",
  "loop",
  "devices",
  "figures",
  "together",
)


def merge(runs: Sequence[Path], workdir: Path) -> None:
  """Writes the folder of all runs together.

  Args:
    runs: folders of finished runs.
    workdir: the new folder.

  Raises:
    ValueError: if there is no run, one is not finished, configs or seeds
      differ, two runs played the same method on the same stream, or another
      process writes the new folder.
  """
  configs = {run: _read_config(run) for run in runs}
  if not configs:
    raise ValueError("no run to merge")
  merged = _merge_configs(configs)
  traces = {}
  for run in runs:
    for name, one in trace.load(run / reporting.TRACE).items():
      if name in traces:
        raise ValueError(f"{name} was played by more than one run, also {run}")
      traces[name] = one
  lock.keep(lock.hold_folder(workdir))
  atomic.write_json(workdir / reporting.CONFIG, merged)
  traces = _in_order(traces, merged["config"])
  trace.save(workdir / reporting.TRACE, traces)
  baseline = merged["config"]["baseline"]
  summary = comparison.summarise(traces, baseline)
  reporting.write_summary(workdir, summary)
  comparison.draw(workdir)


def find(patterns: str) -> list[Path]:
  """Folders that a comma list of paths and patterns names, sorted.

  Raises:
    ValueError: if a pattern matches nothing.
  """
  runs = []
  for pattern in patterns.split(","):
    found = sorted(glob.glob(pattern.strip()))
    if not found:
      raise ValueError(f"no run matches {pattern.strip()!r}")
    runs += [Path(path) for path in found]
  return list(dict.fromkeys(runs))


def _read_config(run: Path) -> dict[str, Any]:
  for file in (reporting.CONFIG, reporting.TRACE):
    if not (run / file).exists():
      raise ValueError(f"{run} has no {file}: not a finished run")
  return reporting.read_json(run / reporting.CONFIG)


def _merge_configs(configs: Mapping[Path, Mapping[str, Any]]) -> dict[str, Any]:
  """The first config with the lists of all, or an error with the difference."""
  (first, merged), *others = configs.items()
  merged = {**merged, "config": dict(merged["config"])}
  ours = merged["config"]
  for run, other in others:
    theirs = other["config"]
    for field in ours.keys() | theirs.keys():
      mine, its = ours.get(field), theirs.get(field)
      if field not in _MAY_DIFFER and mine != its:
        raise ValueError(
          f"runs differ: {field}={mine!r} in {first}, {its!r} in {run}"
        )
    if merged["seeds"] != other["seeds"]:
      raise ValueError(f"runs differ: other seeds in {first} than in {run}")
    for field in _LISTS:
      names = f"{ours[field]},{theirs[field]}".split(",")
      ours[field] = ",".join(dict.fromkeys(name.strip() for name in names))
    for name in ours["settings"].keys() & theirs["settings"].keys():
      mine, its = ours["settings"][name], theirs["settings"][name]
      if mine != its:
        raise ValueError(
          f"runs differ: setting {name!r} is {mine!r} in {first}, {its!r} in "
          f"{run}"
        )
    ours["settings"] = {**ours["settings"], **theirs["settings"]}
  devices = dict.fromkeys(one["device"] for one in configs.values())
  return merged | {
    "device": "; ".join(devices),
    "merged_from": [str(run) for run in configs],
  }


def _in_order(
  traces: Mapping[str, trace.Trace], config: Mapping[str, Any]
) -> dict[str, trace.Trace]:
  """Sorts by setting, family, mix and method as one run would have played."""
  lists = [
    [name.strip() for name in config[field].split(",")] for field in _LISTS
  ]
  lists.insert(2, ["", *config["settings"]])

  def place(name: str) -> tuple[int, ...]:
    stream, _, method = name.rpartition("/")
    parts = [*stream.split("/"), ""][:3] + [method]
    return tuple(
      names.index(part) for names, part in zip(lists, parts, strict=True)
    )

  return dict(sorted(traces.items(), key=lambda item: place(item[0])))


def main(argv: Sequence[str]) -> None:
  with launch.guarded():
    if len(argv) > 1:
      raise ValueError(f"unknown arguments {argv[1:]}")
    merge(find(flags.FLAGS.runs), Path(flags.FLAGS.workdir))


if __name__ == "__main__":
  flags.DEFINE_string("runs", None, "Run folders, comma list of patterns.")
  flags.DEFINE_string("workdir", None, "The folder of all together.")
  flags.mark_flags_as_required(["runs", "workdir"])
  app.run(main)
