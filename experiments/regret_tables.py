"""The regret study's tables of curves, ablations and robustness, from runs.

  python -m experiments.regret_tables --study=ablation_tanbr \
    --run=runs/ablation_tanbr --write

With `--run`, a comma list of folders of finished runs of that study, what the
study's table needs is kept in `experiments/regret/studies.json`. Prints the
tables of all studies that are kept; with `--write` also puts each between its
markers of the README beside that file. What was compared decides the table:

settings   a row a stream and setting, a column a method: final regret
ablation   a row a variant: pooled ratio to the reference, final regrets
otherwise  a row a mix and method: final regret and growth exponent by family
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import app, flags

from experiments.common import launch, readme_block
from experiments.merge_runs import find
from tanbr_jax.report import workdir
from tanbr_jax.storage import atomic

RESULTS = launch.ROOT / "experiments" / "regret" / "studies.json"
_QUANTITIES = ("expected_regret", "growth_exponent", "ratio")
_LISTS = ("families", "mixes", "bandits")
_SAME = ("num_rounds", "num_experts", "baseline", "figures")


def collect(runs: Sequence[Path]) -> dict[str, Any]:
  """Takes what a table needs from runs of `experiments.regret`.

  Args:
    runs: folders of runs of one study, which may have played other families,
      mixes, methods, settings and numbers of seeds, on other machines.

  Returns:
    What was compared, the seeds of each stream and method, and flat keys of the
    summaries to 4 digits.

  Raises:
    ValueError: a run is not finished or of another study.
  """
  kept: dict[str, Any] = {}
  lists: dict[str, list[str]] = {name: [] for name in (*_LISTS, "settings")}
  told: dict[str, list[str]] = {"device": [], "jax": []}
  seeds: dict[str, int] = {}
  summary: dict[str, float] = {}
  for run in runs:
    for file in (workdir.CONFIG, workdir.SUMMARY):
      if not (run / file).exists():
        raise ValueError(f"{run} has no {file}: not a finished run")
    about = workdir.read_json(run / workdir.CONFIG)
    config = about["config"]
    same = {name: config[name] for name in _SAME}
    if kept and same != kept:
      raise ValueError(f"{run} is of another study: {same}, got {kept} before")
    kept = same
    for name in _LISTS:
      lists[name] += [part.strip() for part in config[name].split(",")]
    lists["settings"] += config["settings"]
    told["device"].append(about["device"])
    told["jax"].append(about["versions"]["jax"])
    for key, value in workdir.read_json(run / workdir.SUMMARY).items():
      name, _, quantity = key.rpartition("/")
      quantity = quantity.removesuffix("_low").removesuffix("_high")
      if value is not None and quantity in _QUANTITIES:
        summary[key] = float(f"{value:.4g}")
        seeds[name] = config["num_seeds"]
  unique = {k: list(dict.fromkeys(v)) for k, v in (lists | told).items()}
  return kept | unique | {"seeds": seeds, "summary": summary}


def table(results: Mapping[str, Any]) -> str:
  """A study's table as Markdown, below its caption; see the module."""
  if results["settings"]:
    titles, lines, tells = _by_setting(results)
  elif results["figures"] == "ablation":
    titles, lines, tells = _by_variant(results)
  else:
    titles, lines, tells = _by_mix(results)
  most = max(results["seeds"].values())
  fewer = " if not said" if min(results["seeds"].values()) < most else ""
  caption = (
    f"{tells} after {results['num_rounds']:,} slots, {most} seeds{fewer}; jax "
    f"{' and '.join(results['jax'])}, {' and '.join(results['device'])}."
  )
  return f"{caption}\n\n{readme_block.table(titles, lines)}"


_Table = tuple[list[str], list[list[str]], str]


def _by_setting(results: Mapping[str, Any]) -> _Table:
  lines = [
    [
      f"{family}, {mix}",
      setting,
      *(
        _regret(results, f"{family}/{mix}/{setting}/{method}")
        for method in results["bandits"]
      ),
    ]
    for family in results["families"]
    for mix in results["mixes"]
    for setting in results["settings"]
  ]
  titles = ["stream", "setting", *map("`{}`".format, results["bandits"])]
  return titles, lines, "Expected regret"


def _by_variant(results: Mapping[str, Any]) -> _Table:
  baseline = results["baseline"]
  streams = [f"{f}/{m}" for f in results["families"] for m in results["mixes"]]
  lines = []
  for variant in results["bandits"]:
    cells = [variant]
    for stream in streams:
      ratio = "1"
      if variant != baseline:
        ratio = _interval(results, f"{stream}/{variant}/ratio", "{:.2f}")
      cells += [_regret(results, f"{stream}/{variant}"), ratio]
    lines.append(cells)
  titles = ["variant"]
  for stream in streams:
    titles += [stream.replace("/", ", "), f"over {baseline}"]
  tells = "Expected regret, and its ratio, a geometric mean over paired seeds,"
  return titles, lines, tells


def _by_mix(results: Mapping[str, Any]) -> _Table:
  lines, titles = [], ["mix", "method"]
  for family in results["families"]:
    titles += [family, "exponent"]
  for mix in results["mixes"]:
    for method in results["bandits"]:
      cells = [mix, f"`{method}`"]
      for family in results["families"]:
        name = f"{family}/{mix}/{method}"
        exponent = _interval(results, f"{name}/growth_exponent", "{:.2f}")
        cells += [_regret(results, name), exponent]
      lines.append(cells)
  tells = "Expected regret, and its growth exponent over the last decade,"
  return titles, lines, tells


def _regret(results: Mapping[str, Any], name: str) -> str:
  """The final regret of a stream and method, with its seeds where fewer."""
  text = _interval(results, f"{name}/expected_regret", "{:,.0f}")
  count = results["seeds"].get(name, 0)
  if not count or count == max(results["seeds"].values()):
    return text
  return f"{text} ({count} seeds)"


def _interval(results: Mapping[str, Any], key: str, form: str) -> str:
  summary = results["summary"]
  if key not in summary:
    return "-"
  ends = [summary.get(key + end) for end in ("_low", "_high")]
  text = form.format(summary[key])
  if None in ends:
    return text
  return f"{text} [{form.format(ends[0])}, {form.format(ends[1])}]"


def main(argv: Sequence[str]) -> None:
  with launch.guarded():
    if len(argv) > 1:
      raise ValueError(f"unknown arguments {argv[1:]}")
    kept = workdir.read_json(RESULTS) if RESULTS.exists() else {}
    if bool(flags.FLAGS.run) != bool(flags.FLAGS.study):
      raise ValueError("--run and --study go together")
    if flags.FLAGS.run:
      found = atomic.jsonable(collect(find(flags.FLAGS.run)))
      kept[flags.FLAGS.study] = found
    readme = RESULTS.with_name("README.md")
    text = readme.read_text("utf-8")
    for study, results in kept.items():
      made = table(results)
      print(f"{study}\n\n{made}\n")
      if flags.FLAGS.write:
        text = readme_block.replace(text, study, made)
    # Results of which no table can be made are not kept.
    if flags.FLAGS.run:
      atomic.write_json(RESULTS, kept)
    if flags.FLAGS.write:
      atomic.write_text(readme, text)


if __name__ == "__main__":
  readme_block.define_flags("Folders of runs of the study, a comma list.")
  flags.DEFINE_string("study", "", "The study's name, that of its markers.")
  app.run(main)
