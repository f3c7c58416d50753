"""One writer a folder: a lock that outlives neither its process nor its host.

The lock is a file that is created exclusively, which works where `flock` does
not, and that says who holds it. While it is held a thread touches it every few
seconds. Whether its holder is gone is told

- on the same machine by its process id and, where the system tells it, by the
  time that the process began,
- from another machine (or container) by the touches: if the file does not
  change for `SILENCE` seconds, watched from here, its holder is gone. No clocks
  are compared.

The lock of a process that is gone is taken over. A process may hold a lock many
times, as when a command opens a folder and then plays several runs in it.
"""

import atexit
import contextlib
import datetime
import json
import os
import shlex
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from absl import logging

NAME = ".lock"
# Seconds: between two touches; without one until a holder elsewhere is given
# up; until a lock without a readable holder is; between two looks.
BEAT, SILENCE, UNREADABLE, POLL = 10.0, 60.0, 5.0, 0.2

_held: dict[str, "_Held"] = {}
_guard = threading.RLock()
_until_exit = contextlib.ExitStack()
_scopes = [_until_exit]
atexit.register(_until_exit.close)


class _Held:
  """A lock of this process: its text, how often it is held, its heartbeat."""

  def __init__(self, path: str, text: bytes) -> None:
    self.text, self.count, self.pid = text, 1, os.getpid()
    self.thread = threading.get_ident()
    self.ended = threading.Event()
    threading.Thread(target=self._beat, args=(path,), daemon=True).start()

  def _beat(self, path: str) -> None:
    while not self.ended.wait(BEAT):
      with contextlib.suppress(
        OSError
      ):  # `verify` tells of a lock that is gone
        if _read(path) == self.text:
          os.utime(path)


@contextlib.contextmanager
def hold(
  path: str | os.PathLike[str], *, what: str, wait: bool = False
) -> Iterator[None]:
  """Holds the lock file at `path`, which is removed at the end.

  Args:
    path: the lock file; its folder must be there.
    what: it guards, for messages.
    wait: whether to wait for another holder, which the log then names. Threads
      wait for each other, too.

  Raises:
    ValueError: another process holds it, and `wait` is False.
    OSError: the file cannot be written.
  """
  path = os.path.realpath(path)
  _acquire(path, what, wait)
  try:
    yield
  finally:
    _release(path)


def hold_folder(
  folder: str | os.PathLike[str],
) -> contextlib.AbstractContextManager[None]:
  """Makes a folder and holds it as the only process that writes there."""
  Path(folder).mkdir(parents=True, exist_ok=True)
  return hold(Path(folder) / NAME, what=str(folder))


def keep(held: contextlib.AbstractContextManager[None]) -> None:
  """Enters `held` until the innermost `scope` ends, or this process."""
  _scopes[-1].enter_context(held)


@contextlib.contextmanager
def scope() -> Iterator[None]:
  """Ends, when it ends, all that was kept within it."""
  with contextlib.ExitStack() as stack:
    _scopes.append(stack)
    try:
      yield
    finally:
      _scopes.remove(stack)


def verify(folder: str | os.PathLike[str]) -> None:
  """Raises a ValueError if a folder that is held is gone or another's."""
  path = os.path.realpath(Path(folder) / NAME)
  mine, found = _held.get(path), _read(path)
  if mine is not None and mine.text != found:
    who = "it was removed" if found is None else f"{_who(found)} took it over"
    raise ValueError(f"{folder} is not this run's folder any more: {who}")


def _acquire(path: str, what: str, wait: bool) -> None:
  told = set()

  def tell(message: str) -> None:
    if message not in told:
      logging.warning("%s", message)
      told.add(message)

  while True:
    # This process has it already, or gets it.
    with _guard:
      mine = _mine(path)
      if mine is not None and (
        not wait or mine.thread == threading.get_ident()
      ):
        mine.count += 1
        return
      if mine is None and (text := _create(path)) is not None:
        _held[path] = _Held(path, text)
        return
    # Somebody has it, who may be gone.
    if (found := _read(path)) is None:
      continue
    if mine is None:
      if (seconds := _seconds_to_watch(found)) > UNREADABLE:
        who = f"whether {_who(found)} is alive"
        tell(f"{what}: looking for up to {seconds:.0f} s {who}")
      if _is_gone(path, found, seconds):
        _take_over(path, found)
        continue
    if not wait:
      raise ValueError(f"{what} is in use by {_who(found)}")
    tell(f"waiting for {_who(found)}, which makes {what}")
    time.sleep(POLL)


def _mine(path: str) -> _Held | None:
  """What this process holds at `path`."""
  mine = _held.get(path)
  if mine is None:
    return None
  if mine.pid == os.getpid() and _read(path) == mine.text:
    return mine
  # Of the process that forked this one, or removed with its folder.
  mine.ended.set()
  del _held[path]
  return None


def _release(path: str) -> None:
  with _guard:
    mine = _held.get(path)
    if mine is None or mine.pid != os.getpid():
      return
    mine.count -= 1
    if mine.count:
      return
    del _held[path]
    mine.ended.set()
    with contextlib.suppress(OSError):
      if _read(path) == mine.text:
        os.unlink(path)


def _create(path: str) -> bytes | None:
  """Creates the lock and returns its text; None if there is one already."""
  try:
    file = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
  except FileExistsError:
    return None
  text = json.dumps(_me()).encode()
  try:
    os.write(file, text)
  except OSError as error:
    os.unlink(path)
    raise OSError(error.errno, error.strerror, path) from error
  finally:
    os.close(file)
  return text


def _read(path: str) -> bytes | None:
  """The lock's text, None if there is no lock.

  Opening it makes network file systems look at the server.
  """
  try:
    return Path(path).read_bytes()
  except (FileNotFoundError, NotADirectoryError):
    return None


def _me() -> dict[str, Any]:
  now = datetime.datetime.now().astimezone()
  return {
    "host": socket.gethostname(),
    "machine": _machine(),
    "pid": os.getpid(),
    "began": _process(os.getpid())[1],
    "since": now.isoformat(" ", "seconds"),
    "command": " ".join(shlex.join(sys.orig_argv).split())[:200],
  }


def _machine() -> str:
  """Tells boots and process namespaces apart, where the system does."""
  parts = [socket.gethostname()]
  with contextlib.suppress(OSError):
    parts.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
    parts.append(os.readlink("/proc/self/ns/pid"))
  return " ".join(parts)


def _process(pid: int) -> tuple[bool, str | None]:
  """Whether a process lives, and when it began, where the system tells."""
  try:
    # The name, in brackets, may hold anything.
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return fields[0] not in "ZX", fields[19]
  except (OSError, IndexError):
    pass
  try:
    os.kill(pid, 0)
  except ProcessLookupError:
    return False, None
  except OSError:  # another user's
    pass
  return True, None


def _owner(text: bytes) -> dict[str, Any] | None:
  """Who a lock says to hold it, None where that cannot be read."""
  try:
    owner = json.loads(text)
    is_whole = type(owner["pid"]) is int and owner.keys() >= {
      "machine",
      "began",
    }
  except (ValueError, TypeError, KeyError, RecursionError):
    return None
  return owner if is_whole else None


def _who(text: bytes) -> str:
  owner = _owner(text)
  if owner is None:
    return "a process that its lock does not name"
  who = f"process {owner['pid']} on host {owner.get('host')}"
  return f"{who} since {owner.get('since')} ({owner.get('command')})"


def _seconds_to_watch(text: bytes) -> float:
  """How long a lock must be watched to tell that its holder is gone."""
  owner = _owner(text)
  if owner is None:
    return UNREADABLE
  return 0.0 if owner["machine"] == _machine() else SILENCE


def _is_gone(path: str, text: bytes, seconds: float) -> bool:
  if seconds:
    return not _changes(path, text, seconds)
  owner = _owner(text)
  return _process(owner["pid"]) != (True, owner["began"])


def _changes(path: str, text: bytes, seconds: float) -> bool:
  """Whether the lock is touched or replaced within some seconds."""

  def look() -> tuple[bytes | None, int]:
    try:
      return _read(path), os.stat(path).st_mtime_ns
    except OSError:
      return None, 0

  first, end = look(), time.monotonic() + seconds
  while time.monotonic() < end:
    time.sleep(min(POLL, seconds))
    if look() != first:
      return True
  return first[0] != text


def _take_over(path: str, text: bytes) -> None:
  """Removes the lock if it still reads `text`.

  A second lock, which is held for an instant, keeps two processes from
  removing one after the other, when the second would be the first one's new.
  """
  guard = f"{path}.takeover"
  if _create(guard) is None:
    with contextlib.suppress(OSError):
      if time.time() - os.stat(guard).st_mtime > SILENCE:
        os.unlink(guard)
    time.sleep(POLL)
    return
  try:
    if _read(path) == text:
      os.unlink(path)
  finally:
    os.unlink(guard)
