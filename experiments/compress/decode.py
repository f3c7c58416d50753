"""Decode times of pruned models at true widths, with random weights.

  python -m experiments.compress.decode --write

One step of B sequences through a few layers of a known model's shape, all
experts and pruned ones in turns, and the distinct experts that a layer reads in
it: a random router uses all of them alike, which is the most that pruning can
save. Prints the table, keeps it in `decode.json` and, with `--write`, puts it
in the README; with `--kept` it measures nothing. Run time: a minute on an H100,
for which the default's sizes are.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import app, flags

from experiments.common import launch, readme_block
from experiments.compress import costs
from tanbr_jax import compress, models
from tanbr_jax.report import workdir as reporting
from tanbr_jax.storage import atomic

NAME = "decode"
RESULTS = Path(__file__).with_name("decode.json")
SPARSITIES = (0.0, 0.5, 0.75)


def collect(
  config: models.DecoderConfig, *, batches: Sequence[int], repeats: int
) -> dict[str, Any]:
  """Times every sparsity and batch.

  Args:
    config: of the whole model.
    batches: B of each column.
    repeats: timed steps of each.
  """
  model = models.Decoder(config)
  params = jax.jit(model.init)(jax.random.key(0))
  num_layers, num_experts = len(config.moe_layers), config.num_experts
  pruned, rows = {}, []
  for sparsity in SPARSITIES:
    kept = round((1 - sparsity) * num_experts)
    if kept >= config.num_selected:
      keep = np.tile(np.arange(kept), (num_layers, 1))
      pruned[sparsity] = compress.prune(model, params, keep)
  times = {b: costs.decode_times(pruned, b, repeats) for b in batches}
  for sparsity, (small, own) in pruned.items():
    row = {
      "sparsity": sparsity,
      "num_experts": small.config.num_experts,
      "expert_bytes": models.expert_bytes(own),
    }
    distinct = costs.distinct_of_steps(small, own, batches)
    for batch in batches:
      time = times[batch][sparsity]
      row[f"ms_{batch}"] = [time.median, time.low, time.high]
      row[f"distinct_{batch}"] = distinct[batch]
    rows.append(row)
  return {
    "rows": rows,
    "batches": list(batches),
    "shape": {
      name: getattr(config, name)
      for name in (
        *("model_dim", "expert_dim", "num_experts", "num_selected"),
        *("num_layers", "dtype"),
      )
    },
    "repeats": repeats,
    **reporting.circumstances(),
  }


def to_markdown(found: dict[str, Any]) -> str:
  """The table and what it was measured with."""
  shape = ", ".join(f"{k} {v}" for k, v in found["shape"].items())
  titles = ["experts cut", "experts of a layer", "expert bytes"]
  for batch in found["batches"]:
    titles += [f"distinct, B = {batch}", f"ms, B = {batch}", "ratio"]
  lines = []
  for row in found["rows"]:
    line = [
      f"{100 * row['sparsity']:g} %",
      str(row["num_experts"]),
      f"{row['expert_bytes']:,}",
    ]
    for batch in found["batches"]:
      median, low, high = row[f"ms_{batch}"]
      whole = found["rows"][0][f"ms_{batch}"][0]
      line += [
        f"{row[f'distinct_{batch}']:.1f}",
        f"{median:.3f} [{low:.3f}, {high:.3f}]",
        f"{median / whole:.2f}",
      ]
    lines.append(line)
  head = (
    f"Medians of {found['repeats']} steps, in brackets the quartiles; {shape}; "
    f"jax {found['versions']['jax']}, {found['device']}."
  )
  return f"{head}\n\n{readme_block.table(titles, lines)}"


def main(argv: Sequence[str]) -> None:
  with launch.guarded():
    if len(argv) > 1:
      raise ValueError(f"unknown arguments {argv[1:]}")
    if not flags.FLAGS.kept:
      config = models.preset(
        flags.FLAGS.preset, num_layers=flags.FLAGS.layers, context=512
      )
      if config.num_experts is None:
        raise ValueError(f"preset {flags.FLAGS.preset!r} has no experts")
      batches = launch.counts(flags.FLAGS.batches, kind="batches")
      found = collect(config, batches=batches, repeats=flags.FLAGS.repeats)
      atomic.write_json(RESULTS, found)
    made = to_markdown(reporting.read_json(RESULTS))
    print(made)
    if flags.FLAGS.write:
      readme = RESULTS.with_name("README.md")
      text = readme_block.replace(readme.read_text("utf-8"), NAME, made)
      atomic.write_text(readme, text)


if __name__ == "__main__":
  flags.DEFINE_string("preset", "olmoe_1b_7b", "A name of models.PRESETS.")
  flags.DEFINE_integer("layers", 4, "How many of its layers.", 1)
  flags.DEFINE_string("batches", "1,16,64", "B, a comma list.")
  flags.DEFINE_integer("repeats", 50, "Timed steps of each.", 1)
  flags.DEFINE_bool("kept", False, "Measure nothing: read the kept results.")
  flags.DEFINE_bool("write", False, "Put it between the README's markers.")
  app.run(main)
