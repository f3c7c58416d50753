"""Device time of merging and of MoE blocks, each beside its floor and peers.

  python -m experiments.benchmark_kernels --workdir=runs/kernels

Calls are chained in one program, programs are queued, inputs rotate, and the
rows of one shape and number of tokens take turns, PyTorch's among them: see
`tanbr_jax.timing.device_time`. Writes `summary.json`, see
`experiments.kernels.results`; `experiments.kernel_table` makes a table.
"""

import os
import sys
import time
from pathlib import Path

import ml_collections

from experiments.common import launch
from experiments.kernels.bench import ShapeBench
from experiments.kernels.ceilings import describe, find_ceilings
from experiments.kernels.results import Results
from experiments.kernels.settings import read
from tanbr_jax.report import workdir as reporting


def run(config: ml_collections.ConfigDict, *, workdir: str) -> None:
  """Measures every point, the ceilings first, and writes as it goes."""
  settings = read(config)
  end = time.perf_counter() + settings.max_seconds
  ceilings = find_ceilings(settings)
  print(f"ceilings: {describe(ceilings)}", flush=True)
  results = Results(
    Path(workdir) / reporting.SUMMARY,
    run={
      **reporting.circumstances(("torch", "transformers", "tokamax")),
      "ceilings": ceilings._asdict(),
      "command": command(sys.argv[1:]),
    },
  )
  for name in settings.shapes:
    if time.perf_counter() > end:
      print(f"out of time before {name}", flush=True)
      return
    ShapeBench(name, settings, ceilings, results).run(end=end)


def command(arguments: list[str]) -> str:
  """The command line without `--workdir`, which means nothing elsewhere."""
  kept = [a for a in arguments if not a.startswith(("--workdir", "-workdir"))]
  return " ".join(["python -m experiments.benchmark_kernels", *kept])


if __name__ == "__main__":
  # PyTorch needs its share of the memory.
  os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
  launch.start(run, config="configs/kernels/gpu.py", workdir="runs/kernels")
