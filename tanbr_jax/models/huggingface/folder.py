"""What lies in a checkpoint folder: config, shards and small files beside."""

import dataclasses
import json
from pathlib import Path
from typing import Any

from tanbr_jax.models.huggingface import tensor_file
from tanbr_jax.models.huggingface.tensor_file import Entry

CONFIG = "config.json"
ONE_FILE = "model.safetensors"
INDEX = "model.safetensors.index.json"
GENERATION = "generation_config.json"
TOKENIZER = "tokenizer.json"
# What generation and tokenizers read.
_SIDE_FILES = (
  "added_tokens.json",
  "chat_template.jinja",
  "chat_template.json",
  GENERATION,
  "merges.txt",
  "special_tokens_map.json",
  TOKENIZER,
  "tokenizer.model",
  "tokenizer_config.json",
  "vocab.json",
)


@dataclasses.dataclass(frozen=True)
class Stored:
  """One tensor of a checkpoint folder.

  Attributes:
    key: its name.
    dtype: its type, a name of `tensor_file.DTYPES`.
    file: the name of its file.
  """

  key: str
  dtype: str
  file: str


@dataclasses.dataclass(frozen=True)
class Origin:
  """The folder that a model came from, so that it can be written alike.

  Attributes:
    family: a model type.
    config: the text of config.json.
    layout: one of the family's layouts.
    dtype: the type that the parameters would have without a cast.
    tensors: those that the model is made of, in the order of the files.
    unused: keys of tensors that were known and left out.
    side_files: name and content of the tokenizer's and other small files.
  """

  family: str
  config: str
  layout: str
  dtype: str
  tensors: tuple[Stored, ...]
  unused: tuple[str, ...] = ()
  side_files: tuple[tuple[str, bytes], ...] = ()

  def token_ids(self, name: str) -> tuple[int, ...]:
    """The tokens of a key like `eos_token_id`; generation_config.json wins."""
    files = dict(self.side_files)
    for text in (files.get(GENERATION, b"{}"), self.config):
      value = json.loads(text).get(name)
      if value is not None:
        return tuple(value) if isinstance(value, list) else (value,)
    return ()


def read_json(path: Path) -> dict[str, Any]:
  """Returns a file's JSON object.

  Raises:
    ValueError: if there is no such file, or it is no JSON object.
  """
  try:
    value = json.loads(path.read_text("utf-8"))
  except FileNotFoundError:
    raise ValueError(f"there is no file {str(path)!r}") from None
  except (OSError, ValueError) as error:
    raise ValueError(f"{str(path)!r} cannot be read ({error})") from None
  if not isinstance(value, dict):
    raise ValueError(f"{str(path)!r} must hold an object, got {value!r:.60}")
  return value


def read_entries(folder: Path) -> dict[str, Entry]:
  """Returns all tensors of a folder by name, from the headers alone.

  Raises:
    ValueError: if there are no such files, one is cut or missing, or the index
      and the files disagree.
  """
  one_file, index_file = folder / ONE_FILE, folder / INDEX
  if not index_file.is_file():
    if one_file.is_file():
      return tensor_file.read_entries(one_file)
    raise ValueError(
      f"there is no {ONE_FILE} and no {INDEX} in {str(folder)!r}"
    )
  places = read_json(index_file).get("weight_map")
  if not isinstance(places, dict) or not all(
    isinstance(name, str) for name in places.values()
  ):
    raise ValueError(f"{str(index_file)!r} has no weight_map of file names")
  entries: dict[str, Entry] = {}
  for name in dict.fromkeys(places.values()):
    path = folder / name
    if Path(name).name != name or not path.is_file():
      raise ValueError(f"{str(index_file)!r} names {name!r}, which is missing")
    entries.update(tensor_file.read_entries(path))
  for key, name in places.items():
    if key not in entries or entries[key].file.name != name:
      raise ValueError(
        f"{str(index_file)!r} puts {key!r} in {name!r}, which does not hold it"
      )
  return entries


def read_side_files(folder: Path) -> tuple[tuple[str, bytes], ...]:
  """Name and content of the small files that are there."""
  paths = [folder / name for name in _SIDE_FILES]
  return tuple((p.name, p.read_bytes()) for p in paths if p.is_file())
