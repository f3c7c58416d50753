"""The folder where results that are costly to make again are kept."""

import json
import os
import tempfile
from pathlib import Path

import numpy as np

from tanbr_jax.storage import atomic

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


def save_arrays(
  path: Path, arrays: dict[str, np.ndarray], header: dict
) -> None:
  """Writes arrays and a JSON header as one .npz, atomically.

  Args:
    path: the file.
    arrays: name -> array; no name may be "header".
    header: a dict that JSON can hold.
  """
  text = np.frombuffer(json.dumps(header).encode(), np.uint8)
  atomic.write_arrays(path, {"header": text, **arrays})


def load_arrays(path: Path) -> tuple[dict[str, np.ndarray], dict]:
  """Reads what `save_arrays` wrote.

  Returns:
    A pair (arrays, header).

  Raises:
    FileNotFoundError: there is no such file.
    ValueError: the file is truncated or corrupt.
  """
  try:
    with open(path, "rb") as file, np.load(file, allow_pickle=False) as archive:
      arrays = {name: archive[name] for name in archive.files}
    header = json.loads(arrays.pop("header").tobytes())
  except FileNotFoundError:
    raise
  # Damaged bytes make NumPy, zipfile and json raise nearly anything.
  except Exception as error:
    raise ValueError(f"{str(path)!r} cannot be read ({error})") from None
  return arrays, header
