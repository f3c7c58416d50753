"""Queues that read a batch, decode tokens or merge experts again and again.

Each is a `device_time.Queue`.
"""

from typing import Any

import jax
import jax.numpy as jnp

from tanbr_jax import models


class Batches:
  """Reading the same batch again and again."""

  calls = 1

  def __init__(
    self, program: jax.stages.Compiled, params: Any, tokens: Any, reroute: Any
  ) -> None:
    """Binds a program of `compile_all` to its inputs."""
    self._run = lambda: program(params, tokens, reroute)

  def run(self, programs: int) -> jax.Array:
    """Queues programs; each one's cache is dropped when the next is queued."""
    logits = None
    for _ in range(programs):
      logits, _ = self._run()
    return logits


class Decoding:
  """Decoding again and again in one cache."""

  def __init__(
    self,
    program: jax.stages.Compiled,
    params: Any,
    tokens: jax.Array,
    reroute: Any,
    *,
    caches: dict[int, models.Cache],
  ) -> None:
    """Binds a program.

    Args:
      program: of `compile_all`.
      params: of its model.
      tokens: [steps, B].
      reroute: of `make_reroute`.
      caches: B -> cache, shared by all forms: programs update it in place.
    """
    self.calls, self._batch_size = tokens.shape
    self._caches = caches
    self._run = lambda cache: program(params, cache, tokens, reroute)

  def run(self, programs: int) -> jax.Array:
    """Queues programs, each on the cache that the one before leaves."""
    chosen = None
    for _ in range(programs):
      cache = self._caches.pop(self._batch_size)
      chosen, self._caches[self._batch_size] = self._run(cache)
    return chosen


class Merging:
  """Merging every layer again and again."""

  calls = 1

  def __init__(self, model: models.Decoder, params: models.Params) -> None:
    """Binds the model; weights are uniform, which changes no time."""
    num_experts = model.config.num_experts
    weights = jnp.full(num_experts, 1 / num_experts)
    self._run = lambda: models.merge(model, params, weights)[1]

  def run(self, programs: int) -> models.Params:
    """Queues merges and returns the last one's parameters."""
    merged = None
    for _ in range(programs):
      merged = self._run()
    return merged
