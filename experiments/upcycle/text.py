"""Text of the tasks as tokens, and text of no task: licences.

Letters: V tasks, n windows, S tokens of context.
"""

import re
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from experiments.common import launch
from experiments.upcycle.settings import UpcycleSettings
from tanbr_jax import data

OTHER = "licences"
_LICENCE = re.compile(r"(licen[cs]e|copying|notice)", re.IGNORECASE)


class Text(NamedTuple):
  """What is trained on, chosen on and scored on.

  Attributes:
    task_names: V names, then `OTHER`.
    train: text of V tasks.
    validation: [V, n, S + 1] tokens, on which merge weights are chosen.
    test: V arrays [n, S + 1], and [n, S + 1] of no task, which are scored; of
      the split that the settings name.
    fingerprint: of the corpus.
    messages: what a user should know.
  """

  task_names: tuple[str, ...]
  train: data.TaskText
  validation: jax.Array
  test: list[jax.Array]
  fingerprint: str
  messages: tuple[str, ...]


def read(
  settings: UpcycleSettings, tokenizer: Any, vocab_size: int, cache: Path
) -> Text:
  """Reads the tasks' text and the licences of what is installed.

  Raises:
    ValueError: a task has too little text.
  """
  length = settings.upcycle.context + 1
  corpus = data.load_corpus(settings.data_path, cache, context=length)
  if settings.tasks:
    names = launch.names(settings.tasks, known=corpus.task_names, kind="task")
    corpus = data.select_tasks(corpus, names)
  corpus = data.tokenise_corpus(
    corpus,
    tokenizer,
    vocab_size=vocab_size,
    context=settings.upcycle.context,
    min_windows={"train": 1, "validation": 1, "test": 1},
    cache_dir=cache,
  )

  def windows(split: str, count: int) -> jax.Array:
    text = data.from_arrays(corpus.splits[split], min_length=length)
    return data.evaluation_windows(text, count, length)

  ids = tokenizer.encode(licences(), add_special_tokens=False).ids
  other = data.from_arrays([np.array(ids, np.uint32)], min_length=length)
  return Text(
    (*corpus.task_names, OTHER),
    data.from_arrays(corpus.splits["train"], min_length=length),
    windows("validation", settings.validation_windows),
    [
      *windows(settings.scored, settings.test_windows),
      data.evaluation_windows(other, settings.other_windows, length)[0],
    ],
    corpus.fingerprint,
    corpus.messages,
  )


def licences() -> str:
  """The licence files of the installed packages, each text once."""
  found = {}
  for package in metadata.distributions():
    for file in package.files or ():
      if _LICENCE.match(file.name) and file.suffix in ("", ".txt", ".md"):
        path = Path(package.locate_file(file))
        if path.is_file():
          found[str(file)] = path.read_text("utf-8", "replace")
  texts = dict.fromkeys(found[name] for name in sorted(found))
  return "\n\n".join(texts)
