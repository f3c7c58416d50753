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

import jax
import jax.numpy as jnp
import ml_collections

from experiments.common import launch
from experiments.kernels import bench as kernel_bench
from experiments.kernels import inputs as kernel_inputs
from experiments.kernels import results as kernel_results
from experiments.kernels import rows as kernel_rows
from experiments.kernels import shapes as kernel_shapes
from experiments.kernels.shapes import SHAPES, Ceilings
from tanbr_jax.report import workdir as reporting
from tanbr_jax.timing import device_time
from tanbr_jax.timing.device_time import Job

COMMAND_LINE = launch.Flags("configs/kernels/gpu.py", workdir="runs/kernels")
GROUPS = (
  "merging",
  "routed",
  "merged",
  "masked",
  "parts",
  "forced",
  "shipped",
  "torch",
  "transformers",
)


def main() -> None:
  # PyTorch needs its share of the memory.
  os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
  run(COMMAND_LINE.config, workdir=COMMAND_LINE.workdir)


def run(config: ml_collections.ConfigDict, *, workdir: str) -> None:
  """Measures every point, the ceilings first, and writes as it goes."""
  shapes, tokens, groups = check(config)
  end = time.perf_counter() + config.max_seconds
  ceilings = measure_ceilings(config)
  print(f"ceilings: {describe(ceilings)}", flush=True)
  results = kernel_results.Results(
    Path(workdir) / reporting.SUMMARY,
    run={
      **reporting.circumstances(("torch", "transformers", "tokamax")),
      "ceilings": ceilings._asdict(),
      "command": command(sys.argv[1:]),
    },
  )
  for name in shapes:
    if time.perf_counter() > end:
      print(f"out of time before {name}", flush=True)
      return
    bench = kernel_bench.ShapeBench(name, config, groups, ceilings, results)
    bench.run(tokens, end=end)


def check(
  config: ml_collections.ConfigDict,
) -> tuple[list[str], list[int], list[str]]:
  """The config's shapes, numbers of tokens and groups of rows.

  Raises:
    ValueError: one of them is unknown.
  """
  shapes = launch.names(config.shapes, known=SHAPES, kind="shape")
  groups = launch.names(config.rows, known=GROUPS, kind="row")
  texts = str(config.tokens).split(",")
  if not all(text.strip().isdigit() and int(text) > 0 for text in texts):
    raise ValueError(f"tokens must be positive, got tokens={config.tokens!r}")
  return shapes, [int(text) for text in texts], groups


def command(arguments: list[str]) -> str:
  """The command line without the folder, which is nobody else's."""
  kept = [a for a in arguments if not a.startswith(("--workdir", "-workdir"))]
  return " ".join(["python -m experiments.benchmark_kernels", *kept])


def measure_ceilings(config: ml_collections.ConfigDict) -> Ceilings:
  """Bandwidth of a copy and of a reduction, rate of a matrix product."""
  side, width = config.matmul_size, 4096
  size = (max(config.ceiling_bytes // (kernel_shapes.ITEM * width), 1), width)
  keys = jax.random.split(jax.random.key(6), 2)
  arrays = [(kernel_inputs.normal(key, size=size),) for key in keys]
  left, right = (kernel_inputs.normal(k, size=(side, side)) for k in keys)
  squares = [(left, right), (right, left)]
  found = device_time.compile_all(
    {
      "copy": Job(kernel_rows.copy, arrays, 4),
      "read": Job(_sum_all, arrays, 4),
      "read_rows": Job(_sum_rows, arrays, 4),
      "matmul": Job(jnp.matmul, squares, 4),
    }
  )
  took = kernel_bench.measured(found, config)
  num_bytes = arrays[0][0].nbytes
  seconds = {name: took[name].median / 1e3 for name in took}
  return Ceilings(
    copy=2 * num_bytes / seconds["copy"],
    read=num_bytes / min(seconds["read"], seconds["read_rows"]),
    matmul=2 * side**3 / seconds["matmul"],
  )


def _sum_all(x: jax.Array) -> jax.Array:
  return jnp.sum(x, dtype=jnp.float32)


def _sum_rows(x: jax.Array) -> jax.Array:
  return jnp.sum(x, axis=1, dtype=jnp.float32)


def describe(ceilings: Ceilings) -> str:
  return (
    f"copy {ceilings.copy / 1e12:.2f} TB/s, read {ceilings.read / 1e12:.2f} "
    f"TB/s, matmul {ceilings.matmul / 1e12:.0f} TFLOP/s"
  )


if __name__ == "__main__":
  launch.start(main, command_line=COMMAND_LINE)
