"""The tables and the figure of losses in experiments/upcycle/README.md.

  python -m experiments.upcycle.table --run=runs/upcycle_smollm2 --write

Prints the tables; with `--run` (a comma list of finished or stopped runs) from
what is there of each recipe and seed, else from the kept `smollm2.json`. With
`--write` also draws `losses.png`, where losses by task of the control and of
experts are kept.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from absl import app, flags

from experiments.common import readme_block
from experiments.upcycle import evaluation, figures
from experiments.upcycle.command import RECORD
from experiments.upcycle.text import OTHER
from tanbr_jax.plots import parts
from tanbr_jax.report import workdir as reporting

RESULTS = Path(__file__).with_name("smollm2.json")
FIGURE = "losses.png"
FORMS = {
  "base/itself": "the base model",
  "dense/itself": "its FFNs tuned on all tasks",
  "domains/uniform": "one expert a domain: uniform merge",
  "domains/static": "best static merge",
  "domains/own": "each task's own x, searched",
  "domains/table": "each task's own expert",
  "domains/routed": "routed, router fitted last",
  "merged/uniform": "merged form, learnt table: uniform merge",
  "merged/static": "best static merge",
  "merged/own": "each task's own x, searched",
  "merged/table": "each task's row of the table",
  "merged/routed": "routed",
  "routed/uniform": "trained routed alone: uniform merge",
  "routed/static": "best static merge",
  "routed/own": "each task's own x, searched",
  "routed/routed": "routed",
}
# Form -> its name in the figure, and the form whose loss is its zero.
DRAWN = {
  "domains/static": "best static x",
  "domains/own": "own x",
  "domains/routed": "routed",
}
CONTROL = "dense/itself"
# First less second, seed by seed.
GAPS = (
  ("domains/table", "dense/itself"),
  ("domains/own", "dense/itself"),
  ("domains/own", "domains/static"),
  ("domains/routed", "domains/own"),
  ("merged/own", "dense/itself"),
  ("merged/own", "merged/static"),
  ("merged/routed", "merged/own"),
)


def collect(runs: Sequence[Path]) -> dict[str, Any]:
  """Figures and losses by form and seed, continued prompts, circumstances.

  Raises:
    ValueError: if the runs read different text or hold no scores.
  """
  found: dict[str, Any] = {
    "figures": {},
    "losses": {},
    "continued": {},
    "seconds": {},
  }
  for run in runs:
    config = reporting.read_json(run / reporting.CONFIG)
    text_of = config["corpus_fingerprint"]
    if found.get("corpus_fingerprint", text_of) != text_of:
      raise ValueError(
        f"runs must read one text, got {found['corpus_fingerprint']} and, in "
        f"{run}, {text_of}"
      )
    for name in ("versions", "device", "corpus_fingerprint"):
      found[name] = config[name]
    for path in sorted(run.glob("*.json")):
      recipe, _, seed = path.stem.rpartition("_")
      record = reporting.read_json(path)
      if "forms" not in record:
        continue
      recipe, seed = (recipe, seed) if recipe else ("base", "0")
      for form, scores in record["forms"].items():
        own = found["figures"].setdefault(f"{recipe}/{form}", {})
        own[seed] = evaluation.means(scores)
        by_task = found["losses"].setdefault(f"{recipe}/{form}", {})
        by_task[seed] = scores["loss"]
      if (about := run / path.stem / RECORD).exists():
        names = reporting.read_json(about)["task_names"]
        found["task_names"] = [*names, OTHER]
      if "seconds" in record:
        found["seconds"].setdefault(recipe, {})[seed] = record["seconds"]
      if record.get("continued"):
        found["continued"].setdefault(recipe, record["continued"])
  if not found["figures"]:
    raise ValueError(f"no scores in {', '.join(map(str, runs))}")
  return found


def text(found: Mapping[str, Any]) -> str:
  """The tables of scores, of gaps, and the continued prompts."""
  figures = found["figures"]
  lines = []
  for name, title in FORMS.items():
    if name in figures:
      own = list(figures[name].values())
      lines.append(
        [
          title,
          *(
            _cell([one[key] for one in own], digits)
            for key, digits in (
              ("loss", 3),
              ("accuracy", 3),
              ("licences_loss", 3),
            )
          ),
          str(len(own)) if not name.startswith("base") else "-",
        ]
      )
  titles = ["model", "loss", "accuracy", "loss, licences", "seeds"]
  gaps = []
  for first, second in GAPS:
    seeds = [s for s in figures.get(first, {}) if s in figures.get(second, {})]
    if seeds:
      off = [
        figures[first][s]["loss"] - figures[second][s]["loss"] for s in seeds
      ]
      gaps.append([first, second, _cell(off, 3), str(len(seeds))])
  parts = [
    f"jax {found['versions']['jax']}, {found['device']}; mean over tasks and "
    "seeds, in brackets the least and the largest seed. Text "
    f"`{found['corpus_fingerprint'][:12]}`.",
    readme_block.table(titles, lines),
    "Differences of loss, seed by seed:",
    readme_block.table(["of", "less", "difference", "seeds"], gaps),
  ]
  if found["seconds"]:
    parts.append(_seconds(found))
  if continued := _continued(found):
    parts += [
      "Greedy continuations, first seed:",
      readme_block.table(["model", "prompt", "text"], continued),
    ]
  return "\n\n".join(parts)


def draw(found: Mapping[str, Any], path: Path) -> None:
  """Draws losses less the control's of the same seeds.

  Nothing where not both are kept, or no names of tasks.
  """
  losses = found.get("losses", {})
  control = losses.get(CONTROL, {})
  shown = {}
  for form, title in DRAWN.items():
    seeds = [seed for seed in losses.get(form, {}) if seed in control]
    if seeds:
      shown[title] = [
        np.subtract(losses[form][seed], control[seed]) for seed in seeds
      ]
  if shown and "task_names" in found:
    parts.save(figures.losses(shown, task_names=found["task_names"]), path)


def _seconds(found: Mapping[str, Any]) -> str:
  """How long each training took."""
  times = (
    f"{recipe} {_cell(list(own.values()), 0)} s"
    for recipe, own in found["seconds"].items()
  )
  return (
    f"Training, compilation included, beside other work on the GPU: "
    f"{', '.join(times)}."
  )


def _cell(values: Sequence[float], digits: int) -> str:
  mean = f"{np.mean(values):.{digits}f}"
  if len(values) < 2:
    return mean
  return f"{mean} [{min(values):.{digits}f}, {max(values):.{digits}f}]"


def _continued(found: Mapping[str, Any]) -> list[list[str]]:
  """Rows of the base and of one recipe's forms."""
  lines = []
  for recipe, form, title in (
    ("base", "itself", "base"),
    ("dense", "itself", "tuned on all"),
    ("domains", "itself", "domains, routed"),
    ("domains", "uniform", "domains, uniform"),
    ("domains", "own", "domains, own x"),
  ):
    by_task = found["continued"].get(recipe, {}).get(form, {})
    lines += [[title, task, repr(text)] for task, text in by_task.items()]
  return lines


def main(argv: Sequence[str]) -> None:
  readme_block.main(
    argv,
    "smollm2",
    RESULTS,
    collect=lambda runs: collect([Path(one) for one in str(runs).split(",")]),
    text=text,
  )
  if flags.FLAGS.write:
    draw(reporting.read_json(RESULTS), RESULTS.with_name(FIGURE))


if __name__ == "__main__":
  readme_block.define_flags("Folders of runs, a comma list.")
  app.run(main)
