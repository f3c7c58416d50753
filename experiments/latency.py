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

from experiments.common import launch
from experiments.kernels.ceilings import describe, find_ceilings
from experiments.kernels.shapes import floor_seconds
from experiments.model_latency import floors as latency_floors
from experiments.model_latency.bench import Bench
from experiments.model_latency.programs import (
  BATCH,
  FORMS,
  MERGED,
  ROUTED,
)
from experiments.model_latency.settings import LatencySettings, read
from experiments.model_latency.table import markdown, time_key
from tanbr_jax import models
from tanbr_jax.report import workdir as reporting

MODULE = "experiments.latency"


def main(config: ml_collections.ConfigDict, *, workdir: str) -> None:
  """Measures one model here, or each of several in its own process."""
  names = read(config).models
  if len(names) == 1:
    run(config, workdir=workdir)
    return
  arguments = {name: ["--config.models=" + name] for name in names}
  run_apart(arguments, sys.argv[1:], workdir=workdir)


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
  settings = read(config)
  (name,) = settings.models
  folder = reporting.open_workdir(Path(workdir).absolute(), config, seeds=[0])
  found = time_model(settings, settings.shape(name))
  summary = {f"{name}/{key}": value for key, value in found.items()}
  summary["device"] = jax.devices()[0].device_kind
  reporting.write_summary(folder, summary)
  print(markdown(name, found, settings.sizes))
  print(f"results: {folder / reporting.SUMMARY}")
  return summary


def time_model(
  settings: LatencySettings, model_config: models.DecoderConfig
) -> dict[str, Any]:
  """All figures of one model, flat."""
  bench = Bench(settings, model_config)
  found: dict[str, Any] = {"num_layers": model_config.num_layers}
  params = bench.make_model(MERGED, FORMS[-1:], found)
  del params  # Before the routed model is made.
  params = bench.make_model(ROUTED, FORMS[:-1], found)
  found |= bench.time_all(params, found)
  del params, bench  # Their memory is where the ceilings are found.
  return found | floors(settings, model_config)


def floors(
  settings: LatencySettings, model_config: models.DecoderConfig
) -> dict[str, Any]:
  """Milliseconds of every floor, on what the device reaches."""
  sizes, ceilings = settings.sizes, find_ceilings(settings)
  found = {"ceilings": describe(ceilings)}
  for form in FORMS:
    for batch_size in (BATCH, *sizes.decode_batch_sizes):
      work = latency_floors.work(
        model_config,
        sizes,
        form,
        batch_size,
        active_share=settings.active_share,
      )
      key = time_key(form, batch_size).replace("_ms", "_floor_ms")
      found[key] = 1e3 * floor_seconds(work, ceilings)
  work = latency_floors.merging_work(model_config)
  found["merge/merge_floor_ms"] = 1e3 * floor_seconds(work, ceilings)
  return found


if __name__ == "__main__":
  launch.start(
    main, config="configs/model_latency/quick.py", workdir="runs/model_latency"
  )
