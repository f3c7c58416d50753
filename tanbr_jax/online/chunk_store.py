"""Chunks of a run on disk, written so that a kill loses at most one of them.

After a chunk three things happen in this order: its trace is written, its line
is appended to `metrics.jsonl`, the carry is replaced. The carry names the
number of chunks that are done and is the only thing believed on a resume:
a trace or a line beyond it belongs to a chunk that will run again.

Every file carries a checksum and says whose it is. A file that was damaged, or
is another run's, costs one line in the log that names it; the run goes on from
the last chunk whose state is left. Where the states of all chunks together are
small, each chunk's file holds that after it; otherwise a damaged chunk sends
the run back to its beginning. A metrics line that is missing is made anew.
"""

import contextlib
import hashlib
import json
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from absl import logging

from tanbr_jax.online import trace as trace_lib
from tanbr_jax.storage import atomic, lock
from tanbr_jax.storage.numerics import differences, numerics

METRICS = "metrics.jsonl"
# The states of all chunks are kept if they take no more bytes than this.
MOST_STATE_BYTES = 2**26
_CARRY, _STATE = "carry.npz", "state/"


class _UnusableError(Exception):
  """A file that a run goes on without."""


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


@contextlib.contextmanager
def opened(
  workdir: str | os.PathLike[str] | None,
  name: str,
  *,
  run_id: str,
  num_chunks: int,
  num_processes: int = 1,
) -> Iterator["ChunkStore | None"]:
  """A `ChunkStore` in a folder that no other process writes meanwhile.

  Without a folder there is no store. Of several processes that play a run each
  holds the folder of its own chunks, and process 0 the run's too. Arguments are
  those of `ChunkStore`.

  Raises:
    ValueError: another process holds the folder, or another number of processes
      played the run.
  """
  if workdir is None:
    yield None
    return
  with contextlib.ExitStack() as held:
    if jax.process_index() == 0 or num_processes == 1:
      held.enter_context(lock.hold_folder(workdir))
    store = ChunkStore(
      workdir,
      name,
      run_id=run_id,
      num_chunks=num_chunks,
      num_processes=num_processes,
    )
    if num_processes > 1:
      held.enter_context(lock.hold_folder(store.folder))
    yield store


def write_metrics(
  workdir: str | os.PathLike[str],
  name: str,
  num_chunks: int,
  metrics: Callable[[int], dict[str, Any]],
) -> None:
  """Writes a run's lines of `metrics.jsonl`, which several processes played.

  Args:
    workdir: the run's folder.
    name: the run's name.
    num_chunks: of the run.
    metrics: index of a chunk -> what its line holds, of all seeds.
  """
  with lock.hold_folder(workdir):
    _mend(Path(workdir) / METRICS, name, num_chunks, metrics)


class ChunkStore:
  """The chunks of one named run below a run's folder.

  Attributes:
    folder: where the carry and the traces of the chunks are.
  """

  def __init__(
    self,
    workdir: str | os.PathLike[str],
    name: str,
    *,
    run_id: str,
    num_chunks: int,
    num_processes: int = 1,
  ) -> None:
    """Opens (and makes) `<workdir>/checkpoints/<name>`.

    One of several processes has a folder below, `process_<index>_of_<count>`,
    with `metrics.jsonl` for its own seeds.

    Args:
      workdir: the run's folder.
      name: the run's name, unique in the folder.
      run_id: digest of all that decides the run; a resume with another one is
        refused.
      num_chunks: of the whole run.
      num_processes: that play the run, each with seeds of its own.

    Raises:
      ValueError: another number of processes played the run.
    """
    self.folder = Path(workdir) / "checkpoints" / name
    self._workdir = Path(workdir)
    _check_processes(self.folder, num_processes)
    if num_processes > 1:
      self.folder /= f"process_{jax.process_index()}_of_{num_processes}"
      self._workdir = self.folder
    self._metrics = self._workdir / METRICS
    self._about = {"run": name, "run_id": run_id, "numerics": numerics()}
    self._num_chunks = num_chunks
    self.folder.mkdir(parents=True, exist_ok=True)

  def load(self, carry_like: Any) -> Saved | None:
    """Reads the last whole chunk, or None where there is none yet.

    Args:
      carry_like: a pytree with the structure and types of the carry.

    Raises:
      ValueError: the folder holds this run with another `run_id`, or under
        other settings of JAX.
    """
    faults, num_done, carry = [], None, None
    try:
      arrays, num_done = self._read(_CARRY)
      carry = _unflatten(arrays, carry_like)
    except FileNotFoundError:
      pass
    except _UnusableError as error:
      faults.append(str(error))
    # The chunks that the carry speaks of, or as many as there are.
    chunks, states = [], []
    for index in range(self._num_chunks if num_done is None else num_done):
      try:
        chunk, state = self._load_chunk(index)
      except FileNotFoundError as error:
        if num_done is not None:
          faults.append(f"{error.filename} is missing")
        break
      except _UnusableError as error:
        faults.append(str(error))
        break
      chunks.append(chunk)
      states.append(state)
    # Without a carry that fits, back to the last chunk that kept its own.
    if num_done != len(chunks):
      while chunks and not states[len(chunks) - 1]:
        chunks.pop()
      carry = None
      if chunks:
        state = states[len(chunks) - 1]
        carry = _unflatten(state, carry_like)
        self._write(_CARRY, state, num_done=len(chunks))
    if faults:
      text = "; ".join(faults)
      logging.warning("%s: the run goes on from chunk %d", text, len(chunks))
    return None if carry is None else Saved(carry, chunks)

  def save(
    self,
    index: int,
    carry: Any,
    chunk: trace_lib.Trace,
    metrics: dict[str, Any],
  ) -> None:
    """Saves chunk `index`; the order of the three writes matters, see above.

    Raises:
      ValueError: the folder was removed, or another process took it over.
      OSError: a file cannot be written.
    """
    lock.verify(self._workdir)
    leaves = jax.tree.leaves(carry)
    state = {f"leaf_{i}": _to_numpy(leaf) for i, leaf in enumerate(leaves)}
    num_bytes = sum(array.nbytes for array in state.values())
    arrays = trace_lib.to_arrays(chunk)
    if num_bytes * self._num_chunks <= MOST_STATE_BYTES:
      arrays |= {_STATE + name: array for name, array in state.items()}
    self._write(_chunk(index), arrays, num_done=index + 1)
    line = _line(self._about["run"], index, metrics)
    atomic.append_line(self._metrics, line)
    self._write(_CARRY, state, num_done=index + 1)

  def mend_metrics(
    self, num_done: int, metrics: Callable[[int], dict[str, Any]]
  ) -> None:
    """Makes `metrics.jsonl` hold a line for each whole chunk and no other.

    Args:
      num_done: whole chunks of this run.
      metrics: index of a chunk -> what its line holds.
    """
    _mend(self._metrics, self._about["run"], num_done, metrics)

  def _write(
    self, file: str, arrays: dict[str, np.ndarray], *, num_done: int
  ) -> None:
    header = {**self._about, "num_done": num_done}
    atomic.write_arrays(self.folder / file, arrays, header=header)

  def _read(self, file: str) -> tuple[dict[str, np.ndarray], int]:
    """Arrays of one of this run's files and the chunks done with it.

    Raises:
      FileNotFoundError: there is no such file.
      _UnusableError: it was damaged or is another's.
      ValueError: as `load`.
    """
    path = self.folder / file
    try:
      arrays, about = atomic.read_arrays(path)
    except ValueError as error:
      raise _UnusableError(str(error)) from None
    if about.get("run") != self._about["run"]:
      raise _UnusableError(f"{path} is of another run, {about.get('run')!r}")
    self._check(about)
    return arrays, about["num_done"]

  def _check(self, about: dict[str, Any]) -> None:
    now = self._about["numerics"]
    if differing := differences(about["numerics"], now):
      raise ValueError(
        f"{self.folder} holds a run under other settings of JAX: {differing}"
      )
    if about["run_id"] != self._about["run_id"]:
      raise ValueError(
        f"{self.folder} holds another run (fingerprint {about['run_id']}, this "
        f"one has {self._about['run_id']}): the bandit, the environment, "
        "num_rounds, seeds, chunk_size or loop differ; choose another workdir"
      )

  def _load_chunk(
    self, index: int
  ) -> tuple[trace_lib.Trace, dict[str, np.ndarray]]:
    """A chunk and the state after it, which is empty if it was not kept."""
    arrays, num_done = self._read(_chunk(index))
    if num_done != index + 1:
      path = self.folder / _chunk(index)
      raise _UnusableError(f"{path} holds chunk {num_done - 1}")
    names = [name for name in arrays if name.startswith(_STATE)]
    state = {name.removeprefix(_STATE): arrays.pop(name) for name in names}
    return trace_lib.from_arrays(arrays), state


def _check_processes(folder: Path, num_processes: int) -> None:
  """Refuses chunks of a run that another number of processes played."""
  found = {
    int(path.name.rpartition("_")[2])
    for path in folder.glob("process_*_of_*")
    if re.fullmatch(r"process_\d+_of_\d+", path.name)
  }
  if any(folder.glob("chunk_*.npz")):
    found.add(1)
  if others := sorted(found - {num_processes}):
    raise ValueError(
      f"{folder} holds a run of {others[0]} processes, got {num_processes}: "
      "start as many, or choose another workdir"
    )


def _mend(
  path: Path, run: str, num_done: int, metrics: Callable[[int], dict[str, Any]]
) -> None:
  """Makes a file of metrics hold a run's whole chunks, see `mend_metrics`."""
  text = ""
  if path.exists():
    text = path.read_text(encoding="utf-8", errors="replace")
  kept, seen, num_damaged = [], set(), 0
  for line in text.splitlines():
    entry = _parse(line)
    if entry is None:
      num_damaged += 1
    elif entry.get("run") != run:
      kept.append(line)
    elif (index := entry.get("chunk")) < num_done and index not in seen:
      seen.add(index)
      kept.append(line)
  if num_damaged:
    logging.warning("%s: %d damaged lines left out", path, num_damaged)
  for index in range(num_done):
    if index not in seen:
      kept.append(_line(run, index, metrics(index)))
  cleaned = "".join(line + "\n" for line in kept)
  if cleaned != text:
    atomic.write_text(path, cleaned)


def _line(run: str, index: int, metrics: dict[str, Any]) -> str:
  return json.dumps(atomic.sealed({"run": run, "chunk": index, **metrics}))


def _chunk(index: int) -> str:
  return f"chunk_{index:06d}.npz"


def _parse(line: str) -> dict[str, Any] | None:
  """A line's entry; None if it was damaged, or torn by the process's death."""
  try:
    entry = json.loads(line)
  except (json.JSONDecodeError, RecursionError):
    return None
  return entry if atomic.is_sealed(entry) else None


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
