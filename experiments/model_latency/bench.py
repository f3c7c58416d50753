"""Memory, then times, of one decoder in all its forms."""

import time
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from experiments.model_latency import programs as latency_programs
from experiments.model_latency.programs import (
  BATCH,
  FORMS,
  MERGED,
  Key,
  kind_of,
)
from experiments.model_latency.queues import Batches, Decoding, Merging
from experiments.model_latency.settings import LatencySettings
from experiments.model_latency.table import BOTH, time_key
from tanbr_jax import models
from tanbr_jax.timing import device_time


class Bench:
  """Programs, prompts and caches of one model."""

  def __init__(
    self, settings: LatencySettings, model_config: models.DecoderConfig
  ) -> None:
    """Compiles nothing yet."""
    self._settings, self._sizes = settings, settings.sizes
    self._pair = latency_programs.make_pair(
      model_config, settings.implementation
    )
    self._programs: dict[Key, jax.stages.Compiled] = {}
    self._caches: dict[int, models.Cache] = {}
    self._begin = time.perf_counter()

  def make_model(
    self, name: str, forms: Sequence[str], found: dict[str, Any]
  ) -> models.Params:
    """Compiles, draws parameters and reads the first batch with every form.

    Args:
      name: ROUTED or MERGED.
      forms: those that the model has; its own first.
      found: gets the bytes.

    Returns:
      The parameters.
    """
    kinds = list(dict.fromkeys(map(kind_of, forms)))
    self._programs |= latency_programs.compile_all(
      self._pair, self._sizes, kinds
    )
    self._report(f"compiled programs: {', '.join(kinds)}")
    model = getattr(self._pair, name)
    params = jax.block_until_ready(model.init(jax.random.key(0)))
    for form in forms:
      before = device_bytes("peak_bytes_in_use")
      jax.block_until_ready(self._queue(form, BATCH, params).run(1))
      after = device_bytes("peak_bytes_in_use")
      is_peak = form == name and after is not None and after > before
      found |= {
        f"{form}/parameter_bytes": num_bytes(params),
        f"{form}/expert_bytes": models.expert_bytes(params),
        f"{form}/peak_bytes": after if is_peak else None,
        **latency_programs.memory_plan(self._programs, form),
      }
    self._report(f"made the {name} model and read a batch")
    return params

  def time_all(
    self, params: models.Params, found: dict[str, Any]
  ) -> dict[str, Any]:
    """Milliseconds of every form, and bytes with both models there.

    Args:
      params: of the routed model.
      found: of `make_model`.

    Returns:
      Medians and quartiles of as many turns as fit into the time.
    """
    merging = Merging(self._pair.routed, params)
    dense_params = jax.block_until_ready(merging.run(1))
    queues: dict[str, device_time.Queue] = {"merge/merge_ms": merging}
    for form in FORMS:
      own = dense_params if form == MERGED else params
      for batch_size in (BATCH, *self._sizes.decode_batch_sizes):
        queues[time_key(form, batch_size)] = self._queue(form, batch_size, own)
    repeats = self._repeats(queues)
    took = device_time.call_times(
      queues, repeats=repeats, min_seconds=self._settings.min_ms / 1e3
    )
    self._report("timed everything")
    times: dict[str, Any] = {"repeats": repeats}
    for key, one in took.items():
      times |= {key: one.median, f"{key}_q1": one.low, f"{key}_q3": one.high}
    return times | with_both(found, params, dense_params)

  def _queue(
    self, form: str, batch_size: int, params: models.Params
  ) -> device_time.Queue:
    """One form's program with its inputs; makes a cache where there is none."""
    sizes, model = self._sizes, self._pair.routed
    inputs = (
      params,
      latency_programs.make_tokens(model.config, sizes, batch_size),
      latency_programs.make_reroute(
        model.config, sizes, batch_size, form, self._settings.active_share
      ),
    )
    program = self._programs[Key(kind_of(form), batch_size)]
    if batch_size == BATCH:
      return Batches(program, *inputs)
    if batch_size not in self._caches:
      cache = latency_programs.make_cache(model, sizes, batch_size)
      self._caches[batch_size] = cache
    return Decoding(program, *inputs, caches=self._caches)

  def _repeats(self, queues: dict[str, device_time.Queue]) -> int:
    """The number of turns that fit into the time; at least three."""
    for _ in range(2):  # The first turn may still have to load programs.
      begin = time.perf_counter()
      for one in queues.values():
        jax.block_until_ready(one.run(1))
      turn = time.perf_counter() - begin
    # Four turns more go into the choice of counts and the warm-up.
    fitting = int(self._settings.max_seconds / turn) - 4
    self._report(f"one turn of {len(queues)} programs takes {turn:.2f} s")
    return int(np.clip(fitting, 3, self._settings.repeats))

  def _report(self, text: str) -> None:
    """A line of progress: what is done, after how long."""
    print(f"{time.perf_counter() - self._begin:6.1f} s: {text}", flush=True)


def with_both(
  found: dict[str, Any], params: models.Params, dense_params: models.Params
) -> dict[str, Any]:
  """Bytes when the routed model is kept, to merge again.

  What merging leaves as it is (attention, norms, embeddings) is there once.
  """
  leaves = jax.tree.leaves((params, dense_params))
  buffers = {leaf.unsafe_buffer_pointer(): leaf.nbytes for leaf in leaves}
  kept = sum(buffers.values()) - found[f"{MERGED}/parameter_bytes"]
  experts = models.expert_bytes(params) + models.expert_bytes(dense_params)
  plans = {
    f"{BOTH}/{key}": found[f"{MERGED}/{key}"] + kept
    for key in ("parameter_bytes", "batch_plan_bytes", "decode_plan_bytes")
  }
  return {f"{BOTH}/expert_bytes": experts, **plans}


def num_bytes(tree: Any) -> int:
  """Bytes of all arrays of a tree."""
  return sum(leaf.nbytes for leaf in jax.tree.leaves(tree))


def device_bytes(name: str) -> int | None:
  """A figure of the device's allocator; None where it keeps none (a CPU)."""
  stats = jax.devices()[0].memory_stats()
  return stats[name] if stats else None
