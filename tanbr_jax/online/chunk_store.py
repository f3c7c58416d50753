"""Chunks of a run on disk, written so that a kill loses at most one of them.

After a chunk three things happen in this order: its trace is written, its line
is appended to `metrics.jsonl`, the carry is replaced. The carry names the
number of chunks that are done and is the only thing believed on a resume:
a trace or a line beyond it belongs to a chunk that will run again.
"""

import hashlib
import json
import os
import re
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from tanbr_jax.online import trace as trace_lib
from tanbr_jax.storage import atomic

METRICS = "metrics.jsonl"
_CARRY = "carry.npz"


class Saved(NamedTuple):
  """The saved part of a run, finished or not.

  Attributes:
    carry: the pytree after the last whole chunk.
    chunks: the traces of all whole chunks, in order.
  """

  carry: Any
  chunks: list[trace_lib.Trace]


def fingerprint(*trees: Any) -> str:
  """A short digest of the structure, types and values of some pytrees.

  Functions count by their qualified name, what they close over does not.
  """
  digest = hashlib.sha256()
  leaves, structure = jax.tree.flatten(trees)
  # A function's repr holds its address, which differs between processes.
  digest.update(re.sub(r" at 0x[0-9a-f]+", "", str(structure)).encode())
  for leaf in leaves:
    array = _to_numpy(leaf)
    digest.update(f"{array.shape}{array.dtype}".encode())
    digest.update(np.ascontiguousarray(array).tobytes())
  return digest.hexdigest()[:16]


class ChunkStore:
  """The chunks of one named run below a run's folder.

  Attributes:
    folder: where the carry and the traces of the chunks are.
  """

  def __init__(
    self, workdir: str | os.PathLike[str], name: str, *, run_id: str
  ) -> None:
    """Opens (and makes) `<workdir>/checkpoints/<name>`.

    Args:
      workdir: the run's folder.
      name: the run's name, unique in the folder.
      run_id: digest of all that decides the run; a resume with another one is
        refused.
    """
    self.folder = Path(workdir) / "checkpoints" / name
    self._metrics = Path(workdir) / METRICS
    self._name = name
    self._run_id = run_id
    self.folder.mkdir(parents=True, exist_ok=True)

  def load(self, carry_like: Any) -> Saved | None:
    """Reads the last whole chunk, or None where there is none yet.

    Args:
      carry_like: a pytree with the structure and types of the carry.

    Returns:
      What was saved; `metrics.jsonl` is rid of lines of unfinished chunks.

    Raises:
      ValueError: the folder holds a run with another `run_id`.
    """
    path = self.folder / _CARRY
    num_done, carry = 0, None
    if path.exists():
      with np.load(path) as arrays:
        self._check_run_id(str(arrays["run_id"]))
        num_done = int(arrays["num_done"])
        carry = _unflatten(arrays, carry_like)
    self._drop_metrics_from(num_done)
    if carry is None:
      return None
    return Saved(carry, [self._load_chunk(k) for k in range(num_done)])

  def save(
    self,
    index: int,
    carry: Any,
    chunk: trace_lib.Trace,
    metrics: dict[str, Any],
  ) -> None:
    """Saves chunk `index`; the order of the three writes matters, see above."""
    atomic.write_arrays(self._chunk_path(index), trace_lib.to_arrays(chunk))
    line = {"run": self._name, "chunk": index, **metrics}
    with open(self._metrics, "a", encoding="utf-8") as file:
      file.write(json.dumps(atomic.jsonable(line)) + "\n")
    leaves = {
      f"leaf_{i}": _to_numpy(leaf)
      for i, leaf in enumerate(jax.tree.leaves(carry))
    }
    atomic.write_arrays(
      self.folder / _CARRY,
      {
        "run_id": np.asarray(self._run_id),
        "num_done": np.asarray(index + 1),
        **leaves,
      },
    )

  def _check_run_id(self, run_id: str) -> None:
    if run_id != self._run_id:
      raise ValueError(
        f"{self.folder} holds another run (fingerprint {run_id}, this one has "
        f"{self._run_id}): the bandit, the environment, num_rounds, seeds, "
        "chunk_size or loop differ; choose another workdir"
      )

  def _chunk_path(self, index: int) -> Path:
    return self.folder / f"chunk_{index:06d}.npz"

  def _load_chunk(self, index: int) -> trace_lib.Trace:
    with np.load(self._chunk_path(index)) as arrays:
      return trace_lib.from_arrays(dict(arrays))

  def _drop_metrics_from(self, num_done: int) -> None:
    if not self._metrics.exists():
      return
    text = self._metrics.read_text(encoding="utf-8")
    kept = [line for line in text.splitlines() if self._keeps(line, num_done)]
    cleaned = "".join(line + "\n" for line in kept)
    if cleaned != text:
      atomic.write_text(self._metrics, cleaned)

  def _keeps(self, line: str, num_done: int) -> bool:
    try:
      entry = json.loads(line)
    except json.JSONDecodeError:  # the process died inside the append
      return False
    return entry["run"] != self._name or entry["chunk"] < num_done


def _to_numpy(leaf: Any) -> np.ndarray:
  if isinstance(leaf, jax.Array) and jax.dtypes.issubdtype(
    leaf.dtype, jax.dtypes.prng_key
  ):
    leaf = jax.random.key_data(leaf)
  return np.asarray(leaf)


def _unflatten(arrays: Any, carry_like: Any) -> Any:
  like, treedef = jax.tree.flatten(carry_like)
  leaves = [_restore(arrays[f"leaf_{i}"], leaf) for i, leaf in enumerate(like)]
  return jax.tree.unflatten(treedef, leaves)


def _restore(array: np.ndarray, like: Any) -> Any:
  if jax.dtypes.issubdtype(like.dtype, jax.dtypes.prng_key):
    return jax.random.wrap_key_data(array, impl=jax.random.key_impl(like))
  # npz forgets the name of bfloat16 and its kin, not their bytes.
  return array.view(like.dtype) if array.dtype.kind == "V" else array
