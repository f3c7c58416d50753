"""The README's tables of a run, kept in a JSON file beside it.

  python -m experiments.wireless.block --name=quick --run=runs/wireless_quick \
    --write

Without `--run` the table is made of what is kept. The run's figures are copied
beside the README as `<name>_<figure>.png`.
"""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absl import app, flags

from experiments.common import launch, readme_block
from tanbr_jax.report import workdir as reporting

HERE = Path(__file__).parent
NAMES = (
  "quick",
  "poor",
  "uplink",
  "top1",
  "fine",
  "slots",
  "slots20",
)
FIGURES = {name: ("curve",) for name in NAMES} | {
  "quick": ("curve", "links", "bounds"),
  "slots": ("slots",),
  "slots20": ("slots",),
}
# What is kept of a run: all of "quick" but its slots, of "slots" these alone.
KEPT = (
  "saved/",
  "dominance/",
  "bound/",
  "curve/siftmoe/",
  "curve/practical_top_k/",
  "curve/ideal_top_k/",
)


def collect(run: Path, name: str) -> dict[str, Any]:
  """The summary, and on what it was run; copies figures."""
  config = reporting.read_json(run / reporting.CONFIG)
  for figure in FIGURES[name]:
    shutil.copyfile(run / f"{figure}.png", HERE / f"{name}_{figure}.png")
  summary = reporting.read_json(run / reporting.SUMMARY)
  is_slots = {key: key.startswith("slots") for key in summary}
  if name.startswith("slots"):
    summary = {k: v for k, v in summary.items() if is_slots[k]}
  elif name == "quick":
    summary = {k: v for k, v in summary.items() if not is_slots[k]}
  else:
    summary = {k: v for k, v in summary.items() if k.startswith(KEPT)}
  return {
    "summary": summary,
    "num_rounds": config["config"]["slots"]["num_rounds"],
    "num_seeds": config["config"]["slots"]["num_seeds"],
    "realisations": config["config"]["sweep"]["realisations"],
    "windows": config["config"]["sweep"]["windows"],
    "device": config["device"],
    "jax": config["versions"]["jax"],
  }


def text(kept: dict[str, Any]) -> str:
  """Headline, points, bounds and fast fading as Markdown, or the slots."""
  summary = kept["summary"]
  if "slots_share_siftmoe" in summary:
    return _slots(summary, kept)
  parts = [
    f"Means over {kept['realisations']} realisations of places and fades with "
    f"95 % intervals, prefills of each: {kept['windows']}; jax {kept['jax']}, "
    f"{kept['device']}.",
    _headline(summary),
    _points(summary, "curve/", ["policy", "budget or knob"]),
    _times(summary),
    _bounds(summary),
    _fast(summary),
  ]
  return "\n\n".join(part for part in parts if part)


def _cell(summary: dict[str, Any], key: str, digits: int) -> str:
  value = summary.get(key)
  if value is None:
    return "-"
  low, high = summary.get(f"{key}_low"), summary.get(f"{key}_high")
  if low is None or high is None:
    return f"{value:.{digits}f}"
  return f"{value:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def _headline(summary: dict[str, Any]) -> str:
  lines = []
  for quality in ("accuracy", "loss"):
    prefix = f"dominance/{quality}/"
    missed = [
      f"{key[len(prefix) : -len('_not_at')]} at "
      + value.replace(" clearly", "*")
      for key, value in summary.items()
      if key.startswith(prefix) and key.endswith("_not_at") and value != "none"
    ]
    saved = f"saved/at_practical_{quality}"
    lines.append(
      f"At practical top-K's {quality} SiftMoE's curve saves "
      f"{_cell(summary, saved, 2)} of its energy, with a hundredth to spare "
      f"{_cell(summary, f'{saved}_less_a_hundredth', 2)}; it dominates "
      f"{summary[prefix + 'beaten']} of the "
      f"{summary[prefix + 'points']} points of the others by {quality}"
      + (f"; not: {', '.join(missed)}." if missed else ".")
    )
  return " ".join(lines)


def _points(summary: dict[str, Any], prefix: str, titles: list[str]) -> str:
  names = dict.fromkeys(
    key.rpartition("/")[0] for key in summary if key.startswith(prefix)
  )
  lines = []
  for name in names:
    policy, value = name[len(prefix) :].rsplit("/", 1)
    lines.append(
      [
        policy,
        value,
        _cell(summary, f"{name}/loss", 3),
        _cell(summary, f"{name}/accuracy", 3),
        _cell(summary, f"{name}/energy_mj", 2),
        _cell(summary, f"{name}/dropped", 3),
      ]
    )
  return readme_block.table(
    [*titles, "loss, nats", "accuracy", "energy, mJ a token", "dropped"], lines
  )


def _fast(summary: dict[str, Any]) -> str:
  lines = []
  for key in summary:
    if key.startswith("fast/") and key.endswith("/expected_ratio"):
      _, slots, load, _ = key.split("/")
      name = f"fast/{slots}/{load}"
      lines.append(
        [
          slots,
          load,
          f"{summary[key]:.3f}",
          _cell(summary, f"{name}/ratio", 3),
        ]
      )
  if not lines:
    return ""
  titles = ["slots", "bits a slot and hertz", "expected", "on drawn gains"]
  return (
    "Energy of adaptive bits a slot under fast fading, relative to uniform "
    "bits, whose expectation is that of slow fading:\n\n"
    + readme_block.table(titles, lines)
  )


def _times(summary: dict[str, Any]) -> str:
  """Of the model's own layers; drawn ones are `decision_time`'s."""
  name = next((k for k in summary if k.endswith("model's/median_ms")), None)
  if name is None:
    return ""
  found = {
    key.rpartition("/")[2]: value
    for key, value in summary.items()
    if key.startswith(name.rpartition("/")[0])
  }
  return (
    f"A decision for one layer of the model takes {found['median_ms']:.1f} ms "
    f"in the median, {found['largest_ms']:.1f} at most (method: "
    f"{found['method']}); it is at most {found['largest_gap']:.3f} above its "
    "lower bound."
  )


def _slots(summary: dict[str, Any], kept: dict[str, Any]) -> str:
  names = dict.fromkeys(
    key.rpartition("/")[0] for key in summary if key.startswith("slots/")
  )
  lines = [
    [
      name[len("slots/") :],
      _cell(summary, f"{name}/reward", 4),
      _cell(summary, f"{name}/above", 4),
      _cell(summary, f"{name}/last_quarter", 4),
      _cell(summary, f"{name}/accuracy", 3),
      _cell(summary, f"{name}/energy_mj", 2),
    ]
    for name in names
  ]
  alone, together = (
    summary[f"slots_share_{name}"] for name in ("siftmoe", "together")
  )
  head = (
    f"{kept['num_rounds']} slots, intervals over {kept['num_seeds']} seeds; "
    f"jax {kept['jax']}, {kept['device']}. Of budgets that are the same for "
    f"all layers validation text prefers {alone:.2f} for SiftMoE alone, "
    f"{together:.2f} where the average stands in for skipping. Accuracy and "
    "energy are of the last quarter's mean weights on test text of all tasks."
    "\n\n"
  )
  return head + readme_block.table(
    [
      "stream",
      "mean reward",
      "above SiftMoE alone",
      "last quarter",
      "accuracy",
      "energy, mJ a token",
    ],
    lines,
  )


def _bounds(summary: dict[str, Any]) -> str:
  found = {
    key[len("bound/") :]: value
    for key, value in summary.items()
    if key.startswith("bound/")
  }
  if "median_tightness" not in found:
    return ""
  return (
    "A token's deviation is at most "
    f"{found['largest_ratio']:.4f} times its exact bound (float32), in the "
    f"median {found['median_tightness']:.2f}. The tables' estimates cover "
    f"{found['coverage_mean']:.2f} (means), {found['coverage_0.9']:.2f} (.9 "
    f"quantiles) and {found['coverage_max']:.2f} (maxima) of the changed "
    "tokens. The logits' deviation is in the median "
    f"{found['propagated_median']:.2f} of the sum over layers, at most "
    f"{found['propagated_largest']:.2f}."
  )


def main(argv: Sequence[str]) -> None:
  with launch.guarded():
    name = flags.FLAGS.name
    readme_block.main(
      argv,
      name,
      HERE / f"{name}.json",
      collect=lambda run: collect(run, name),
      text=text,
    )


if __name__ == "__main__":
  readme_block.define_flags("The folder of a finished run.")
  flags.DEFINE_enum("name", "quick", NAMES, "Whose part of the README.")
  app.run(main)
