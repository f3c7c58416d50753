"""The tokenizer of a checkpoint folder or of a GGUF file."""

import importlib
import os
from pathlib import Path
from typing import Any

from tanbr_jax.models.huggingface import gguf_file
from tanbr_jax.models.huggingface.folder import TOKENIZER


def read_tokenizer(path: str | os.PathLike[str]) -> Any:
  """Reads the tokenizer.json of a checkpoint folder, or what a GGUF file has.

  Args:
    path: the folder, or the file "*.gguf" of byte pairs.

  Returns:
    A `tokenizers.Tokenizer`: `encode(text).ids`, `decode(ids)`.

  Raises:
    ValueError: if there is no such file, it is damaged or not understood, or
      the package `tokenizers` (the extra `hf`) is not installed.
  """
  is_single = gguf_file.is_gguf(path)
  file = Path(path) if is_single else Path(path) / TOKENIZER
  if not file.is_file():
    raise ValueError(f"there is no file {str(file)!r}")
  try:
    tokenizers = importlib.import_module("tokenizers")
  except ImportError:
    raise ValueError(
      f"{str(file)!r} needs the package tokenizers: pip install tanbr-jax[hf]"
    ) from None
  text = gguf_file.read_tokenizer_json(file) if is_single else None
  try:
    if text is not None:
      return tokenizers.Tokenizer.from_str(text)
    return tokenizers.Tokenizer.from_file(str(file))
  # The package raises bare exceptions.
  except Exception as error:
    reason = " ".join(str(error).split())
    raise ValueError(f"{str(file)!r} cannot be read ({reason})") from None
