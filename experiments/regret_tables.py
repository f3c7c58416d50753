"""The regret study's tables of curves, ablations and robustness, from runs.

  python -m experiments.regret_tables --study=ablation_rho_tanbr \
    --run=runs/ablation_rho_tanbr --write

With `--run`, what the study's table needs is taken from the run's folder and
kept in `experiments/regret/studies.json`. Prints the tables of all studies that
are kept; with `--write` also puts each between its markers of the README beside
that file. What the run compared decides the table:

settings   a row a stream and setting, a column a method: final regret
ablation   a row a variant: pooled ratio to the reference, final regrets
otherwise  a row a mix and method: final regret and growth exponent by family
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import app, flags

from experiments.common import launch, readme_block
from tanbr_jax.report import workdir
from tanbr_jax.storage import atomic

RESULTS = launch.ROOT / "experiments" / "regret" / "studies.json"
_QUANTITIES = ("expected_regret", "growth_exponent", "ratio")
_LISTS = ("families", "mixes", "bandits")
_KEPT = ("num_rounds", "num_seeds", "num_experts", "baseline", "figures")


def collect(run: Path) -> dict[str, Any]:
  """Takes what a table needs from a run of `experiments.regret`.

  Returns:
    What was compared, on what, and flat keys of the summary, to 4 digits.

  Raises:
    ValueError: the run is not finished.
  """
  for file in (workdir.CONFIG, workdir.SUMMARY):
    if not (run / file).exists():
      raise ValueError(f"{run} has no {file}: not a finished run")
  about = workdir.read_json(run / workdir.CONFIG)
  config = about["config"]
  lists = {
    name: [part.strip() for part in config[name].split(",")] for name in _LISTS
  }
  summary = {
    key: float(f"{value:.4g}")
    for key, value in workdir.read_json(run / workdir.SUMMARY).items()
    if value is not None
    and key.rpartition("/")[2].removesuffix("_low").removesuffix("_high")
    in _QUANTITIES
  }
  return {
    **{name: config[name] for name in _KEPT},
    **lists,
    "settings": list(config["settings"]),
    "device": about["device"],
    "jax": about["versions"]["jax"],
    "summary": summary,
  }


def table(results: Mapping[str, Any]) -> str:
  """A study's table as Markdown, below its caption; see the module."""
  if results["settings"]:
    titles, lines, tells = _by_setting(results)
  elif results["figures"] == "ablation":
    titles, lines, tells = _by_variant(results)
  else:
    titles, lines, tells = _by_mix(results)
  caption = (
    f"{tells} after {results['num_rounds']:,} slots, {results['num_seeds']} "
    f"seeds; jax {results['jax']}, {results['device']}."
  )
  return f"{caption}\n\n{readme_block.table(titles, lines)}"


_Table = tuple[list[str], list[list[str]], str]


def _by_setting(results: Mapping[str, Any]) -> _Table:
  lines = [
    [
      f"{family}, {mix}",
      setting,
      *(
        _interval(results, f"{family}/{mix}/{setting}/{method}/expected_regret")
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
    ratio = "1"
    if variant != baseline:
      ratio = _interval(results, f"all/{variant}/ratio")
    regrets = (
      _interval(results, f"{stream}/{variant}/expected_regret")
      for stream in streams
    )
    lines.append([variant, ratio, *regrets])
  titles = ["variant", f"over {baseline}"]
  titles += [stream.replace("/", ", ") for stream in streams]
  tells = "Ratio, a geometric mean over streams and seeds, and expected regret"
  return titles, lines, tells


def _by_mix(results: Mapping[str, Any]) -> _Table:
  lines, titles = [], ["mix", "method"]
  for family in results["families"]:
    titles += [family, "exponent"]
  for mix in results["mixes"]:
    for method in results["bandits"]:
      cells = [
        _interval(results, f"{family}/{mix}/{method}/{quantity}")
        for family in results["families"]
        for quantity in ("expected_regret", "growth_exponent")
      ]
      lines.append([mix, f"`{method}`", *cells])
  tells = "Expected regret, and its growth exponent over the last decade,"
  return titles, lines, tells


def _interval(results: Mapping[str, Any], key: str) -> str:
  summary = results["summary"]
  if key not in summary:
    return "-"
  form = "{:,.0f}" if key.endswith("/expected_regret") else "{:.2f}"
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
      kept[flags.FLAGS.study] = collect(Path(flags.FLAGS.run))
      atomic.write_json(RESULTS, kept)
    readme = RESULTS.with_name("README.md")
    text = readme.read_text("utf-8")
    for study, results in kept.items():
      made = table(results)
      print(f"{study}\n\n{made}\n")
      if flags.FLAGS.write:
        text = readme_block.replace(text, study, made)
    if flags.FLAGS.write:
      atomic.write_text(readme, text)


if __name__ == "__main__":
  readme_block.define_flags("Folder of a run of the study.")
  flags.DEFINE_string("study", "", "The study's name, that of its markers.")
  app.run(main)
