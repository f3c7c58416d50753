"""Latency and memory of whole decoders: routed, masked and merged experts.

  python -m experiments.latency --config=configs/model_latency/quick.py

For each model, with random weights: the time to read a batch of prompts (the
logits after the last token and the cache), the time per token to decode with
that cache, of several batch sizes, and the time of one merge. All forms take
turns, calls are queued, every figure is a median with its quartiles; decoding
is a loop on the device whose time is divided by its steps.

Floors are the larger of bytes over the bandwidth and operations over the rate
that the same device reaches in the same run, see `model_latency.floors`.

Memory, in bytes: parameters and experts are counted. `peak_bytes` is the
device's own peak while a batch is read: of the merged model alone, whose
programs are compiled, whose parameters are made and which is deleted before
anything of the routed model is there, then of the routed model alone. Peaks are
cumulative in a process: every model runs in its own, and a peak that does not
exceed all before it, those of compiling and drawing parameters included, is
null. The forms that share the routed parameters, and the case that the routed
model is kept beside the merged one to merge again, have XLA's plan of their
programs alone: inputs, outputs and temporaries.

Writes `summary.json` and prints one table a model, with the paper's figures.
"""

import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import ml_collections

from experiments import benchmark_kernels
from experiments.common import launch
from experiments.kernels import shapes as kernel_shapes
from experiments.model_latency import floors as latency_floors
from experiments.model_latency.bench import Bench
from experiments.model_latency.programs import (
  BATCH,
  FORMS,
  MERGED,
  ROUTED,
  Sizes,
)
from experiments.model_latency.table import markdown, time_key
from tanbr_jax import models
from tanbr_jax.report import workdir as reporting

COMMAND_LINE = launch.Flags(
  "configs/model_latency/quick.py", workdir="runs/model_latency"
)
MODULE = "experiments.latency"


def main() -> None:
  config, workdir = COMMAND_LINE.config, COMMAND_LINE.workdir
  names = check(config)
  if len(names) == 1:
    run(config, workdir=workdir)
    return
  arguments = {name: ["--config.models=" + name] for name in names}
  run_apart(arguments, sys.argv[1:], workdir=workdir)


def check(config: ml_collections.ConfigDict) -> list[str]:
  """The names of the models, checked with all sizes before any work."""
  names = launch.names(config.models, known=models.PRESETS, kind="model")
  for name in config.changes:
    launch.names(name, known=models.PRESETS, kind="model")
  Sizes.of(config)
  if not 0 < config.active_share <= 1 or config.repeats < 1:
    raise ValueError(
      "active_share must be in (0, 1] and repeats at least 1, got "
      f"active_share={config.active_share}, repeats={config.repeats}"
    )
  for name in names:
    shape(config, name)
  return names


def shape(config: ml_collections.ConfigDict, name: str) -> models.DecoderConfig:
  """A preset with the config's changes."""
  changes = {"dtype": config.dtype, **config.changes.get(name, {})}
  return models.preset(name, **changes)


def run_apart(
  arguments: dict[str, list[str]], given: list[str], *, workdir: str
) -> None:
  """Runs every model in its own process and joins their summaries."""
  summary, failed = {}, []
  for name, added in arguments.items():
    folder = Path(workdir) / name
    command = [sys.executable, "-m", MODULE, *given, *added]
    command.append(f"--workdir={folder}")
    if subprocess.run(command).returncode:
      failed.append(name)
    else:
      summary |= reporting.read_json(folder / reporting.SUMMARY)
  Path(workdir).mkdir(parents=True, exist_ok=True)
  reporting.write_summary(workdir, summary)
  if failed:
    raise ValueError(f"models that failed: {failed}; see above")


def run(config: ml_collections.ConfigDict, *, workdir: str) -> dict[str, Any]:
  """Measures the config's one model, writes the folder, prints the table."""
  (name,) = check(config)
  folder, messages = reporting.open_workdir(
    Path(workdir).absolute(), config, seeds=[0]
  )
  for message in messages:
    print(message)
  found = measure(config, shape(config, name))
  summary = {f"{name}/{key}": value for key, value in found.items()}
  summary["device"] = jax.devices()[0].device_kind
  reporting.write_summary(folder, summary)
  print(markdown(name, found, Sizes.of(config)))
  print(f"results: {folder / reporting.SUMMARY}")
  return summary


def measure(
  config: ml_collections.ConfigDict, model_config: models.DecoderConfig
) -> dict[str, Any]:
  """All figures of one model, flat."""
  bench = Bench(config, model_config)
  found: dict[str, Any] = {"num_layers": model_config.num_layers}
  params = bench.make_model(MERGED, FORMS[-1:], found)
  del params  # Before the routed model is made.
  params = bench.make_model(ROUTED, FORMS[:-1], found)
  found |= bench.time_all(params, found)
  del params, bench  # Their memory is where the ceilings are measured.
  return found | floors(config, model_config)


def floors(
  config: ml_collections.ConfigDict, model_config: models.DecoderConfig
) -> dict[str, Any]:
  """Milliseconds of every floor, on what the device reaches."""
  sizes, found = Sizes.of(config), {}
  ceilings = benchmark_kernels.measure_ceilings(config)
  for form in FORMS:
    for batch_size in (BATCH, *sizes.decode_batch_sizes):
      work = latency_floors.work(
        model_config, sizes, form, batch_size, active_share=config.active_share
      )
      key = time_key(form, batch_size).replace("_ms", "_floor_ms")
      found[key] = 1e3 * kernel_shapes.floor_seconds(work, ceilings)
  work = latency_floors.merging_work(model_config)
  seconds = kernel_shapes.floor_seconds(work, ceilings)
  found["merge/merge_floor_ms"] = 1e3 * seconds
  return {"ceilings": benchmark_kernels.describe(ceilings), **found}


if __name__ == "__main__":
  launch.start(main, command_line=COMMAND_LINE)
