"""Wall time of functions, in turns.

Functions that are to be compared run alternately, so that a slow minute of the
machine hits all of them; the median leaves out the odd slow call.
"""

import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np


class Latency(NamedTuple):
  """Wall time of one function, in milliseconds.

  Attributes:
    median: of all repeats.
    low: first quartile.
    high: third quartile.
  """

  median: float
  low: float
  high: float


def wall_times(
  functions: Mapping[str, Callable[[], Any]],
  *,
  repeats: int = 50,
  warmup: int = 3,
  clock: Callable[[], float] = time.perf_counter,
) -> dict[str, Latency]:
  """Times functions without arguments, in turns.

  Args:
    functions: name -> function; its clock stops when its result is ready.
    repeats: timed calls of each.
    warmup: calls of each that are not timed; the first of them compiles.
    clock: seconds.

  Returns:
    name -> latency.

  Raises:
    ValueError: `repeats` or `warmup` is below 1.
  """
  if repeats < 1 or warmup < 1:
    raise ValueError(
      "repeats and warmup must be at least 1, got "
      f"repeats={repeats}, warmup={warmup}"
    )
  for _ in range(warmup):
    for function in functions.values():
      jax.block_until_ready(function())
  seconds: dict[str, list[float]] = {name: [] for name in functions}
  for _ in range(repeats):
    for name, function in functions.items():
      begin = clock()
      jax.block_until_ready(function())
      seconds[name].append(clock() - begin)
  return {name: _quartiles(times) for name, times in seconds.items()}


def _quartiles(seconds: list[float]) -> Latency:
  low, median, high = 1e3 * np.percentile(seconds, (25, 50, 75))
  return Latency(float(median), float(low), float(high))
