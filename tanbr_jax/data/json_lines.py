"""Tasks in files of JSON lines: texts, or prompts with their completions."""

import collections
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from tanbr_jax.data.folder import tell

_FIELDS = ({"text"}, {"prompt", "completion"})


class Example(NamedTuple):
  """A line of a file.

  Attributes:
    text: all of it.
    num_read: how many of its first characters are read and not scored: the
      prompt's.
    line: its number in the file, from 1.
  """

  text: str
  num_read: int
  line: int


def read_examples(path: Path) -> tuple[list[Example], bool, list[str]]:
  """Reads a file of JSON lines.

  Args:
    path: the file, in UTF-8. Each line is an object with a field `text`, or
      each is one with `prompt` and `completion`; all are strings.

  Returns:
    The distinct examples, whether they have prompts, and messages on what was
    left out: lines that repeat another, or have nothing to score.

  Raises:
    ValueError: one line that names the file and the line, if it is no JSON
      object, has other fields or fields of another type; or nothing is left.
  """
  try:
    lines = path.read_text(encoding="utf-8").split("\n")
  except OSError as error:
    raise ValueError(f"{str(path)!r} cannot be read ({error})") from None
  except UnicodeDecodeError as error:
    raise ValueError(f"{str(path)!r} is not UTF-8 ({error})") from None
  examples, left_out, fields = {}, collections.Counter(), None
  for number, line in enumerate(lines, 1):
    if not line.strip():
      continue
    where = f"{str(path)!r}, line {number}:"
    value = _parse(line, where)
    # All lines are of one kind: a task is scored in one way.
    if fields is not None and value.keys() != fields:
      raise ValueError(
        f"{where} must have the fields of the lines before, {sorted(fields)}, "
        f"got {sorted(value)}"
      )
    fields = value.keys()
    prompt, scored = value.get("prompt", ""), value.get("completion")
    scored = value["text"] if scored is None else scored
    if not scored:
      left_out["empty line"] += 1
    elif (prompt, scored) in examples:
      left_out["repeated line"] += 1
    else:
      one = Example(prompt + scored, len(prompt), number)
      examples[prompt, scored] = one
  if not examples:
    found = f" (left out: {tell(left_out)})" if left_out else ""
    raise ValueError(f"task file {str(path)!r} holds no text{found}")
  told = [f"task {path.stem!r}: left out {tell(left_out)}"] if left_out else []
  return list(examples.values()), "prompt" in fields, told


def _parse(line: str, where: str) -> Mapping[str, Any]:
  """The object of a line, whose fields are known and text."""
  try:
    value = json.loads(line)
  # Deep nesting ends in a RecursionError.
  except (ValueError, RecursionError) as error:
    reason = " ".join(str(error).split())
    raise ValueError(f"{where} is not JSON ({reason})") from None
  if not isinstance(value, dict) or set(value) not in _FIELDS:
    got = sorted(value) if isinstance(value, dict) else type(value).__name__
    raise ValueError(
      f"{where} must be an object with 'text', or with 'prompt' and "
      f"'completion', got {got}"
    )
  for name, text in value.items():
    # Half a surrogate pair is no text that could be encoded.
    if not isinstance(text, str) or any(
      "\ud800" <= c <= "\udfff" for c in text
    ):
      raise ValueError(f"{where} {name!r} must be text, got {text!r:.60}")
  return value
