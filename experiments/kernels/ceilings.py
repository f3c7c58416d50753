"""Ceilings of a device, found by timing it; floors are made of them."""

import dataclasses
from collections.abc import Mapping
from typing import Annotated

import jax
import jax.numpy as jnp

from experiments.kernels import inputs as kernel_inputs
from experiments.kernels.rows import copy
from experiments.kernels.shapes import ITEM, Ceilings
from tanbr_jax.checks import ranges
from tanbr_jax.checks.ranges import Count, NonNegative, Range
from tanbr_jax.timing import device_time
from tanbr_jax.timing.device_time import Job
from tanbr_jax.timing.latency import Latency


@dataclasses.dataclass(frozen=True, kw_only=True)
class TimingSettings(ranges.Checked):
  """Repeats, and sizes of what finds ceilings; see configs/kernels/gpu.py."""

  repeats: Count
  min_ms: NonNegative
  ceiling_bytes: Annotated[int, Range(1, 2**40)]
  matmul_size: Count

  def call_times(
    self, queues: Mapping[str, device_time.Queue]
  ) -> dict[str, Latency]:
    """Times one call of each queue, see `device_time.call_times`."""
    return device_time.call_times(
      queues, repeats=self.repeats, min_seconds=self.min_ms / 1e3
    )


def find_ceilings(settings: TimingSettings) -> Ceilings:
  """Bandwidth of a copy and of a reduction, rate of a matrix product."""
  side, width = settings.matmul_size, 4096
  size = (max(settings.ceiling_bytes // (ITEM * width), 1), width)
  keys = jax.random.split(jax.random.key(6), 2)
  arrays = [(kernel_inputs.normal(key, size=size),) for key in keys]
  left, right = (kernel_inputs.normal(k, size=(side, side)) for k in keys)
  squares = [(left, right), (right, left)]
  found = device_time.compile_all(
    {
      "copy": Job(copy, arrays, 4),
      "read": Job(_sum_all, arrays, 4),
      "read_rows": Job(_sum_rows, arrays, 4),
      "matmul": Job(jnp.matmul, squares, 4),
    }
  )
  took = settings.call_times(found)
  num_bytes = arrays[0][0].nbytes
  seconds = {name: took[name].median / 1e3 for name in took}
  return Ceilings(
    copy=2 * num_bytes / seconds["copy"],
    read=num_bytes / min(seconds["read"], seconds["read_rows"]),
    matmul=2 * side**3 / seconds["matmul"],
  )


def describe(ceilings: Ceilings) -> str:
  """The ceilings in words."""
  return (
    f"copy {ceilings.copy / 1e12:.2f} TB/s, read {ceilings.read / 1e12:.2f} "
    f"TB/s, matmul {ceilings.matmul / 1e12:.0f} TFLOP/s"
  )


def _sum_all(x: jax.Array) -> jax.Array:
  return jnp.sum(x, dtype=jnp.float32)


def _sum_rows(x: jax.Array) -> jax.Array:
  return jnp.sum(x, axis=1, dtype=jnp.float32)
