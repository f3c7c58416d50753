"""Device time of JAX functions: chained calls, queued, over rotated inputs.

One call that is awaited costs about 100 us of dispatch on a GPU, more than
most kernels take, and a call on inputs that the previous call has left in the
cache measures the cache. So a program makes several calls one after the other,
each on the next of several sets of inputs; programs are queued, and the host
waits once, at the end.
"""

import math
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar

import jax
from jax import lax

from tanbr_jax.timing import latency

K = TypeVar("K")


class Queue(Protocol):
  """Programs that are queued and waited for once.

  Attributes:
    calls: calls of the timed function that one program makes.
  """

  calls: int

  def run(self, programs: int) -> Any:
    """Queues programs; its result is ready once all have ended."""


class Chain:
  """A compiled program of chained calls, on inputs that take turns."""

  def __init__(
    self,
    function: Callable[..., Any],
    inputs: Sequence[tuple[Any, ...]],
    *,
    length: int = 8,
  ) -> None:
    """Compiles the program.

    Args:
      function: what is timed; a pure function of pytrees of arrays.
      inputs: sets of its arguments, all of the same shapes and types. Together
        they should exceed the device's cache several times.
      length: calls in one program. All of their outputs are kept at a time.

    Raises:
      ValueError: there are no inputs, or `length` is below 1.
    """
    if not inputs or length < 1:
      raise ValueError(
        "needs inputs and a length of at least 1, got "
        f"{len(inputs)} sets of inputs, length={length}"
      )
    self.calls = length
    self._inputs, self._next = list(inputs), 0
    program = jax.jit(chained(function))
    self._program = program.lower(self._take(0)).compile()

  def _take(self, start: int) -> list[tuple[Any, ...]]:
    sets = self._inputs
    return [sets[(start + i) % len(sets)] for i in range(self.calls)]

  def first(self) -> Any:
    """The function's output on the first set of inputs."""
    return self._program(self._take(0))[0]

  def run(self, programs: int) -> Any:
    """Queues programs and returns the outputs of the last one's calls.

    Outputs of the others are dropped while they are queued, so that the memory
    of two programs' outputs is enough.
    """
    outputs = None
    for _ in range(programs):
      outputs = self._program(self._take(self._next))
      self._next = (self._next + self.calls) % len(self._inputs)
    return outputs


def chained(
  function: Callable[..., Any],
) -> Callable[[Sequence[tuple[Any, ...]]], list[Any]]:
  """A function of several sets of arguments that calls one after the other.

  Each call's arguments pass a barrier together with the previous call's
  output: XLA can neither fuse nor reorder calls. All outputs are returned, so
  that none is dropped.
  """
  # Compiled by itself, it is traced and lowered once for all calls.
  function = jax.jit(function)

  def run(inputs: Sequence[tuple[Any, ...]]) -> list[Any]:
    outputs: list[Any] = []
    for arguments in inputs:
      if outputs:
        arguments, _ = lax.optimization_barrier((arguments, outputs[-1]))
      outputs.append(function(*arguments))
    return outputs

  return run


class Job(NamedTuple):
  """The arguments of `Chain`."""

  function: Callable[..., Any]
  inputs: Sequence[tuple[Any, ...]]
  length: int


def compile_all(
  jobs: Mapping[K, Job], *, threads: int = 8
) -> dict[K, Chain | Exception]:
  """Compiles chains in parallel.

  Args:
    jobs: name -> what to compile.
    threads: programs compiled at a time.

  Returns:
    name -> the chain, or what was raised instead.
  """

  def build(job: Job) -> Chain | Exception:
    try:
      return Chain(job.function, job.inputs, length=job.length)
    except Exception as error:  # One that cannot run must not stop the others.
      return error

  with ThreadPoolExecutor(threads) as pool:
    found = dict(zip(jobs, pool.map(build, jobs.values()), strict=True))
  # Once more alone: too many at a time may be what was wrong.
  return {
    name: build(jobs[name]) if isinstance(chain, Exception) else chain
    for name, chain in found.items()
  }


def call_times(
  queues: Mapping[str, Queue],
  *,
  repeats: int = 10,
  min_seconds: float = 0.02,
  clock: Callable[[], float] = time.perf_counter,
) -> dict[str, latency.Latency]:
  """Times one call of each, in turns.

  Args:
    queues: name -> chain, or something else of its kind.
    repeats: times that each is queued and waited for.
    min_seconds: how long one of these takes at least, about; the wait's own
      cost, tens of microseconds, is spread over it.
    clock: seconds.

  Returns:
    name -> milliseconds of one call, the median and quartiles of the repeats.

  Raises:
    ValueError: `repeats` is below 1.
  """
  counts = {
    name: _programs(queue, min_seconds, clock) for name, queue in queues.items()
  }
  found = latency.wall_times(
    {n: lambda n=n: queues[n].run(counts[n]) for n in queues},
    repeats=repeats,
    warmup=1,
    clock=clock,
  )
  return {
    name: latency.Latency(
      *(value / (counts[name] * queues[name].calls) for value in took)
    )
    for name, took in found.items()
  }


def busy(queue: Queue, *, programs: int = 8) -> float:
  """Milliseconds of one call in which a GPU computed, by JAX's profiler.

  What is faster than the host can queue it is timed right by this alone: the
  gaps between kernels are left out.

  Args:
    queue: chain, or something else of its kind.
    programs: how many are queued.

  Returns:
    The sum of the kernels' durations, or NaN on a device that is no GPU.
  """
  jax.block_until_ready(queue.run(1))
  with tempfile.TemporaryDirectory() as folder:
    with jax.profiler.trace(folder):
      jax.block_until_ready(queue.run(programs))
    (path,) = Path(folder).rglob("*.xplane.pb")
    data = jax.profiler.ProfileData.from_file(str(path))
    nanoseconds = kernel_nanoseconds(data.planes)
  return nanoseconds / (programs * queue.calls) / 1e6


def kernel_nanoseconds(planes: Iterable[Any]) -> float:
  """The sum of the kernels' durations in a profile; NaN without a GPU's."""
  durations = [
    event.duration_ns
    for plane in planes
    if plane.name.startswith("/device:GPU")
    for line in plane.lines
    if line.name.startswith("Stream")
    for event in line.events
  ]
  return math.fsum(durations) if durations else math.nan


def _programs(
  queue: Queue, min_seconds: float, clock: Callable[[], float]
) -> int:
  """The number of programs that take about `min_seconds`; at most 1,000."""
  jax.block_until_ready(queue.run(1))
  count = 1
  # Twice: one program alone takes longer than one among many.
  for _ in range(2):
    begin = clock()
    jax.block_until_ready(queue.run(count))
    each = max((clock() - begin) / count, 1e-6)
    count = min(max(math.ceil(min_seconds / each), 1), 1000)
  return count
