"""What pruned models cost: bytes, distinct experts of a step, decode time.

A token's operations do not change, as K does not: what becomes less is what is
kept and, for small batches, read. Letters: L layers, E experts, B sequences.
"""

import functools
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.compress import measures
from experiments.compress.measures import Bench
from experiments.compress.settings import CompressSettings
from tanbr_jax import compress, models
from tanbr_jax.compress.ranking import Selection
from tanbr_jax.timing import latency

# Positions that are cached before the step that is timed, at most.
_CACHED = 128


def rows(
  bench: Bench,
  chosen: Mapping[float, Selection | None],
  settings: CompressSettings,
  folder: Path,
) -> list[dict[str, Any]]:
  """A row for each sparsity.

  Args:
    bench: the whole model and test text.
    chosen: sparsity -> what is kept; None for the whole model.
    settings: of the study.
    folder: where checkpoints are written for their size, and removed.
  """
  pruned = {
    sparsity: (bench.model, bench.params)
    if keep is None
    else compress.prune(bench.model, bench.params, keep)
    for sparsity, keep in chosen.items()
  }
  times = {
    batch: decode_times(pruned, batch, settings.latency_repeats)
    for batch in settings.decode_batches
  }
  found = []
  for sparsity, (model, params) in pruned.items():
    ids = measures.routing_ids(bench, model, params)
    row = {
      "sparsity": sparsity,
      "num_experts": model.config.num_experts,
      "expert_bytes": models.expert_bytes(params),
      "bytes": sum(leaf.nbytes for leaf in jax.tree.leaves(params)),
    }
    if getattr(model, "origin", None) is not None:
      row["file_bytes"] = _file_bytes(model, params, folder / "size")
    for batch in settings.decode_batches:
      time = times[batch][sparsity]
      row |= {
        f"distinct_{batch}": measures.distinct_experts(ids, batch, seed=0),
        f"decode_ms_{batch}": time.median,
        f"decode_ms_{batch}_low": time.low,
        f"decode_ms_{batch}_high": time.high,
      }
    found.append(row)
  return found


def decode_times(
  pruned: Mapping[float, tuple[Any, Any]], batch: int, repeats: int
) -> dict[float, latency.Latency]:
  """One step of B sequences after a cache of zeros, models in turns.

  Args:
    pruned: sparsity -> model and parameters.
    batch: B.
    repeats: of each.
  """
  calls = {}
  for sparsity, (model, params) in pruned.items():
    length = min(_CACHED, (model.config.context or _CACHED + 1) - 1)
    cache = model.init_cache(batch, length + 1)
    cache = cache._replace(length=jnp.int32(length))
    tokens = _random_tokens(model, batch)
    calls[str(sparsity)] = functools.partial(
      _step, model, params, cache, tokens
    )
  found = latency.wall_times(calls, repeats=repeats)
  return {sparsity: found[str(sparsity)] for sparsity in pruned}


def distinct_of_steps(
  model: Any, params: Any, batches: Sequence[int]
) -> dict[int, float]:
  """B -> the mean number of experts of a layer that B random tokens read."""
  tokens = _random_tokens(model, max(batches))[:, None]
  ids = np.asarray(measures.routed_ids(model, params, tokens))
  return {
    batch: float(np.mean([np.unique(layer[:batch]).size for layer in ids]))
    for batch in batches
  }


def _random_tokens(model: Any, batch: int) -> jax.Array:
  vocab_size = model.config.vocab_size
  return jax.random.randint(
    jax.random.key(0), (batch,), 0, vocab_size, jnp.int32
  )


@functools.partial(jax.jit, static_argnums=0)
def _step(model: Any, params: Any, cache: Any, tokens: jax.Array) -> Any:
  return model.decode_step(params, cache, tokens)


def _file_bytes(model: Any, params: Any, path: Path) -> int:
  shutil.rmtree(path, ignore_errors=True)
  models.save_pretrained(model, params, path)
  size = sum(file.stat().st_size for file in path.glob("*.safetensors"))
  shutil.rmtree(path)
  return size
