"""Compiles and times all rows of one shape, PyTorch's among them."""

import functools
import math
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax

from experiments.kernels import (
  agreement,
  torch_block,
  torch_queue,
  transformers_block,
)
from experiments.kernels import inputs as kernel_inputs
from experiments.kernels import results as kernel_results
from experiments.kernels import rows as kernel_rows
from experiments.kernels import shapes as kernel_shapes
from experiments.kernels.ceilings import TimingSettings
from experiments.kernels.rows import Row
from experiments.kernels.settings import KernelSettings
from experiments.kernels.shapes import SHAPES, Ceilings, Shape, Work
from tanbr_jax.timing import device_time, latency
from tanbr_jax.timing.device_time import Chain, Job

# Rows that are timed as programs of one call, too.
SINGLE = ("routed", "merged")
# Up to so many tokens, these may take less time than the host needs.
BUSY_TOKENS = 128


class Point(NamedTuple):
  """Rows that are timed together.

  Attributes:
    rows: of JAX.
    peer: the routed block, which PyTorch's rows are to be compared with.
  """

  rows: Mapping[str, Row]
  peer: Row | None = None


class ShapeBench:
  """All rows of one shape, which share its weights."""

  def __init__(
    self,
    name: str,
    settings: KernelSettings,
    ceilings: Ceilings,
    results: kernel_results.Results,
  ) -> None:
    """Draws the weights."""
    self.name, self.shape = name, SHAPES[name]
    self._settings, self._groups = settings, settings.groups
    self._ceilings, self._results = ceilings, results
    self._experts = kernel_inputs.expert_sets(self.shape)
    self._peers = Peers(self.shape, settings.groups)

  def run(self, *, end: float) -> None:
    """Merging, then the blocks from the fewest tokens on.

    Args:
      end: no point is begun after this time of `time.perf_counter`.
    """
    merged = kernel_inputs.merged_sets(self._experts)
    for num_tokens in filter(self._is_wanted, (None, *self._settings.tokens)):
      if time.perf_counter() > end:
        print(f"out of time before {self.name}, {num_tokens}", flush=True)
        return
      if num_tokens is None:
        point = Point(kernel_rows.merging_rows(self.shape, self._experts))
      else:
        block = kernel_rows.Block(self.shape, num_tokens, self._experts, merged)
        point = Point(
          block.rows(self._groups), block.block_row(kernel_rows.routed)
        )
      self._time(num_tokens, point)

  def _is_wanted(self, num_tokens: int | None) -> bool:
    has_merging = "merging" in self._groups
    if num_tokens is None:
      return has_merging
    return len(self._groups) > has_merging

  def _time(self, tokens: int | None, point: Point) -> None:
    """Compiles and times a point, beside PyTorch, and writes the records."""
    begin = time.perf_counter()
    chains, singles = self._compile(tokens, point)
    compiled = time.perf_counter() - begin
    queues = dict(chains)
    if tokens is not None:
      queues |= self._peers.queues(tokens)
    sound, errors = split(queues)
    errors |= agreement.disagreements(
      {n: queue for n, queue in sound.items() if n in chains}
    )
    sound = {n: queue for n, queue in sound.items() if n not in errors}
    took = self._settings.call_times(sound)
    records = [
      kernel_results.failed((self.name, tokens, name), error)
      for name, error in errors.items()
    ]
    for name, queue in sound.items():
      record = kernel_results.timed(
        (self.name, tokens, name),
        took[name],
        point.rows.get(name, point.peer),
        self._ceilings,
        timing=getattr(queue, "timing", "chain"),
      )
      records.append(record)
    add_singles(records, singles, self._settings)
    if tokens is not None and tokens <= BUSY_TOKENS:
      add_busy(records, singles)
    self._results.add(records)
    seconds = time.perf_counter() - begin
    print(
      f"{self.name}, {tokens} tokens: {compiled:.0f} s to compile, "
      f"{seconds - compiled:.0f} s",
      *(line(record) for record in records),
      sep="\n",
      flush=True,
    )

  def _compile(
    self, tokens: int | None, point: Point
  ) -> tuple[dict[str, Chain | Exception], dict[str, Chain | Exception]]:
    """Chains of all rows, and programs of a single call of some."""
    jobs, most = {}, self._settings.xla_max_tokens
    for name, row in point.rows.items():
      if name == "routed/xla" and tokens is not None and tokens > most:
        continue
      length = chain_length(row.work, self._ceilings)
      jobs[name, False] = Job(row.function, row.inputs, length)
      if name in SINGLE:
        jobs[name, True] = Job(row.function, row.inputs, 1)
    found = device_time.compile_all(jobs, threads=self._settings.threads)
    chains, singles = {}, {}
    for (name, is_single), chain in found.items():
      (singles if is_single else chains)[name] = chain
    return chains, singles


class Peers:
  """PyTorch's rows of one shape; its weights are made when first used."""

  def __init__(self, shape: Shape, groups: list[str]) -> None:
    """Says so if PyTorch cannot be timed."""
    self._shape = shape
    makers = {"torch": torch_block, "transformers": transformers_block}
    self._makers = [m for name, m in makers.items() if name in groups]
    self._weights = None
    if self._makers and (reason := torch_queue.why_not()):
      print(f"without PyTorch's rows: {reason}", flush=True)
      self._makers = []

  def queues(self, num_tokens: int) -> dict[str, Any]:
    """Makes the queues that are timed at this number of tokens."""
    if not self._makers:
      return {}
    if self._weights is None:
      self._weights = torch_block.weight_sets(self._shape)
    tokens = torch_block.token_sets(self._shape, num_tokens)
    pool, found = torch_queue.graph_pool(), {}
    for maker in self._makers:
      found |= maker.queues(self._shape, self._weights, tokens, pool=pool)
    return found


def split(
  queues: Mapping[str, Any],
) -> tuple[dict[str, Any], dict[str, Exception]]:
  """The queues that run once without an error, and the errors of the rest."""
  sound, errors = {}, {}
  for name, queue in queues.items():
    try:
      if isinstance(queue, Exception):
        raise queue
      jax.block_until_ready(queue.run(1))
      sound[name] = queue
    except Exception as error:  # One that cannot run must not stop the others.
      errors[name] = error
  return sound, errors


def add_singles(
  records: list[kernel_results.Record],
  chains: Mapping[str, Chain | Exception],
  settings: TimingSettings,
) -> None:
  """Adds to records how long a call takes that is a program of its own."""
  sound, _ = split(chains)
  queued = settings.call_times(sound)
  calls = {n: functools.partial(chain.run, 1) for n, chain in sound.items()}
  awaited = latency.wall_times(calls, repeats=5 * settings.repeats)
  for record in records:
    if record["row"] in sound:
      record["single_us"] = 1e3 * queued[record["row"]].median
      record["awaited_us"] = 1e3 * awaited[record["row"]].median


def add_busy(
  records: list[kernel_results.Record],
  chains: Mapping[str, Chain | Exception],
) -> None:
  """Adds to records for how long a GPU computes in a call."""
  sound, _ = split(chains)
  for record in records:
    if record["row"] in sound:
      busy = 1e3 * device_time.busy(sound[record["row"]])
      if not math.isnan(busy):
        record["busy_us"] = busy


def chain_length(work: Work, ceilings: Ceilings) -> int:
  """The number of calls in a program that takes about a millisecond.

  The outputs of all calls live at once; a millisecond writes a few GB at most.
  """
  wanted = math.ceil(1e-3 / kernel_shapes.floor_seconds(work, ceilings))
  return min(max(wanted, 2), 16)


def line(record: Mapping[str, Any]) -> str:
  """A record for the terminal."""
  if "error" in record:
    return f"  {record['row']:32} {record['error']}"
  busy = f", busy {record['busy_us']:.1f}" if "busy_us" in record else ""
  return (
    f"  {record['row']:32} {record['median_us']:10.1f} us "
    f"[{record['low_us']:.1f}, {record['high_us']:.1f}], "
    f"{record['x_floor']:.2f} x floor {record['floor_us']:.1f}{busy}"
  )
