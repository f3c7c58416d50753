"""The folder where results that are costly to make again are kept."""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from absl import logging

from tanbr_jax.storage import lock

Entry = TypeVar("Entry")
ENVIRONMENT_VARIABLE = "TANBR_JAX_CACHE"


def cache_dir(path: str | os.PathLike[str] | None = None) -> Path:
  """Returns the cache folder, made and found writable.

  Args:
    path: the folder; by default `$TANBR_JAX_CACHE`, or else
      `~/.cache/tanbr_jax`.

  Raises:
    ValueError: the folder cannot be made or written to.
  """
  default = os.environ.get(ENVIRONMENT_VARIABLE) or "~/.cache/tanbr_jax"
  folder = Path(default if path is None else path)
  try:
    folder = folder.expanduser()
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder):
      pass
  except (OSError, RuntimeError) as error:
    raise ValueError(
      f"cache folder must be writable, got {str(folder)!r} ({error}); name "
      f"another with the environment variable {ENVIRONMENT_VARIABLE}"
    ) from None
  return folder


def fetch(
  path: Path, *, read: Callable[[], Entry], make: Callable[[], Entry]
) -> Entry:
  """Reads an entry of the cache, or makes it as the only process that does.

  Args:
    path: the entry, a file or a folder. What is whole is never replaced.
    read: returns the entry. Raises a FileNotFoundError if there is none, and a
      ValueError that names it if it is damaged: it is made anew then.
    make: writes the entry and returns it. Others that want it wait meanwhile.
  """
  try:
    return read()
  except (FileNotFoundError, ValueError):
    pass
  with lock.hold(f"{path}.lock", what=str(path), wait=True):
    # Another process may have made it while this one waited.
    try:
      return read()
    except FileNotFoundError:
      pass
    except ValueError as error:
      logging.warning("%s: it is made anew", error)
    return make()
