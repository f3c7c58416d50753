"""The tokenizer of a checkpoint folder."""

import importlib
import os
from pathlib import Path
from typing import Any

FILE = "tokenizer.json"


def read_tokenizer(path: str | os.PathLike[str]) -> Any:
  """Reads the tokenizer.json of a checkpoint folder.

  Args:
    path: the folder.

  Returns:
    A `tokenizers.Tokenizer`: `encode(text).ids`, `decode(ids)`.

  Raises:
    ValueError: if there is no such file or it is damaged, or the package
      `tokenizers` (the extra `hf`) is not installed.
  """
  file = Path(path) / FILE
  if not file.is_file():
    raise ValueError(f"there is no file {str(file)!r}")
  try:
    tokenizers = importlib.import_module("tokenizers")
  except ImportError:
    raise ValueError(
      f"{str(file)!r} needs the package tokenizers: pip install tanbr-jax[hf]"
    ) from None
  try:
    return tokenizers.Tokenizer.from_file(str(file))
  # The package raises bare exceptions.
  except Exception as error:
    reason = " ".join(str(error).split())
    raise ValueError(f"{str(file)!r} cannot be read ({reason})") from None
