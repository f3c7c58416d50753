"""Several processes that play one run, as `jax.distributed` starts them.

Each plays seeds of its own at its own pace; what they have to tell each other
goes through here. Where there is one process alone, nothing is waited for.

Texts go by the coordinator of `jax.distributed`, where a process can wait for
days. A process that fails leaves word there, which the others find between two
chunks or while they wait. One that is gone without a word makes JAX end the
others, see `heartbeat_timeout_seconds` of `jax.distributed.initialize`.

Letters: S seeds, P processes.
"""

import contextlib
import itertools
import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

import jax
import numpy as np
from jax._src import (
  distributed,
)  # nothing public holds the coordinator's client
from jax.experimental import multihost_utils

Value = TypeVar("Value")

_POLL_MS = 2_000
_TOLD, _FAILED = "tanbr_jax/told", "tanbr_jax/failed"
_numbers = itertools.count()


def is_first() -> bool:
  """Whether this process writes what all of them found together."""
  return jax.process_index() == 0


def tell(text: str) -> list[str]:
  """Tells every process a text and returns those of all, in their order.

  All processes must call it, and whatever is below, in the same order.

  Raises:
    ValueError: another process failed, or cannot be reached.
  """
  if jax.process_count() == 1:
    return [text]
  number = next(_numbers)
  with _reaching():
    _client().key_value_set(f"{_TOLD}/{number}/{jax.process_index()}", text)
    return [
      _wait(f"{_TOLD}/{number}/{index}") for index in range(jax.process_count())
    ]


def agree(what: str, parts: Mapping[str, Any]) -> None:
  """Refuses a run of which the processes have different ideas.

  Args:
    what: is run, for the error.
    parts: name -> value or digest, as JSON; equal everywhere.

  Raises:
    ValueError: names the parts that differ, in every process.
  """
  told = [json.loads(text) for text in tell(json.dumps(parts))]
  differing = []
  for name in sorted(set().union(*told)):
    values = [theirs.get(name) for theirs in told]
    if any(value != values[0] for value in values):
      differing.append(f"{name}={values}")
  if differing:
    raise ValueError(
      f"{what}: all processes must play the same, got by process "
      + ", ".join(differing)
    )


def together(work: Callable[[], Value]) -> Value:
  """Does a process's part; where one fails, all do.

  Raises:
    ValueError: another process failed: its number and its error.
  """
  if jax.process_count() == 1:
    return work()
  try:
    value = work()
  except BaseException as error:
    text = f"process {jax.process_index()}: {_line(error)}"
    with _reaching():
      _client().key_value_set(f"{_FAILED}/{jax.process_index()}", text)
    raise
  tell("")
  return value


def first_alone(work: Callable[[], Any]) -> None:
  """Lets process 0 do something, for which the others wait.

  Raises:
    ValueError: it failed.
  """
  together(lambda: work() if is_first() else None)


def check() -> None:
  """Raises a ValueError if another process has failed."""
  if jax.process_count() > 1:
    with _reaching():
      _check()


def gather(arrays: Mapping[str, np.ndarray]) -> list[dict[str, np.ndarray]]:
  """The arrays of every process, which may differ in their first size alone.

  They travel as bytes, hence in their own types: JAX would make float32 of
  float64.

  Args:
    arrays: name -> [S, ...], the same names everywhere.

  Returns:
    P dicts, in the order of the processes.

  Raises:
    ValueError: a process is lost.
  """
  if jax.process_count() == 1:
    return [dict(arrays)]
  names = sorted(arrays)
  sizes = [
    dict(zip(names, json.loads(text), strict=True))
    for text in tell(json.dumps([len(arrays[name]) for name in names]))
  ]
  found: list[dict[str, np.ndarray]] = [{} for _ in sizes]
  for name in names:
    array = np.ascontiguousarray(arrays[name])
    data = array.reshape(len(array), -1).view(np.uint8)
    missing = max(theirs[name] for theirs in sizes) - len(array)
    with _reaching():
      data = multihost_utils.process_allgather(
        np.pad(data, ((0, missing), (0, 0)))
      )
    for rows, size, into in zip(data, sizes, found, strict=True):
      own = np.ascontiguousarray(rows[: size[name]]).view(array.dtype)
      into[name] = own.reshape(-1, *array.shape[1:])
  return found


def _client() -> Any:
  client = distributed.global_state.client
  if client is None:
    raise ValueError("several processes need jax.distributed.initialize()")
  return client


def _wait(key: str) -> str:
  """What a process tells, however long it takes it."""
  while True:
    try:
      return _client().blocking_key_value_get(key, _POLL_MS)
    except jax.errors.JaxRuntimeError as error:
      if not str(error).startswith("DEADLINE_EXCEEDED"):
        raise
    _check()


def _check() -> None:
  others = [
    text
    for key, text in _client().key_value_dir_get(_FAILED)
    if not key.endswith(f"/{jax.process_index()}")
  ]
  if others:
    raise ValueError("; ".join(others))


@contextlib.contextmanager
def _reaching() -> Iterator[None]:
  """Tells in one line that a process cannot be reached."""
  try:
    yield
  except jax.errors.JaxRuntimeError as error:
    text = f"a process of this run cannot be reached: {_line(error)}"
    raise ValueError(text) from error


def _line(error: BaseException) -> str:
  """An error as one line."""
  return re.sub(r"\s+", " ", f"{error}") or type(error).__name__
