"""Ctrl-C and SIGTERM: one line that says how to resume, and a usual exit code.

Nothing but the standard library is imported here, so that a signal is caught
while a command still imports JAX.
"""

import contextlib
import os
import shlex
import signal
import sys
import threading
from collections.abc import Iterator
from typing import Any, NoReturn

_WORDS = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated"}


class Terminated(BaseException):
  """SIGTERM, which ends a run as Ctrl-C does."""


def tell(number: int) -> int:
  """Prints the line of a signal and returns the exit code."""
  command = " ".join(shlex.join(sys.orig_argv).split())
  print(f"{_WORDS[number]}; resume with: {command}", file=sys.stderr)
  return 128 + number


def catch_imports() -> None:
  """Until `raising` and after it, a signal ends the process after its line."""

  def stop(number: int, frame: Any) -> NoReturn:
    del frame
    code = tell(number)
    sys.stderr.flush()
    os._exit(code)

  for number in _WORDS:
    signal.signal(number, stop)


@contextlib.contextmanager
def raising() -> Iterator[None]:
  """Ctrl-C raises KeyboardInterrupt and SIGTERM `Terminated`.

  Python swallows what is raised in a callback of its garbage collector or of a
  weak reference, of which JAX has some: the signal is sent again then.
  """

  def terminate(*unused: object) -> NoReturn:
    raise Terminated

  def send_again(unraisable: Any) -> None:
    for kind, number in (
      (KeyboardInterrupt, signal.SIGINT),
      (Terminated, signal.SIGTERM),
    ):
      if issubclass(unraisable.exc_type, kind):
        threading.Timer(0.1, os.kill, [os.getpid(), number]).start()
        return
    hook(unraisable)

  hook, sys.unraisablehook = sys.unraisablehook, send_again
  handlers = (signal.default_int_handler, terminate)
  before = [
    signal.signal(number, handler)
    for number, handler in zip(_WORDS, handlers, strict=True)
  ]
  try:
    yield
  finally:
    for number, handler in zip(_WORDS, before, strict=True):
      signal.signal(number, handler)
    sys.unraisablehook = hook
