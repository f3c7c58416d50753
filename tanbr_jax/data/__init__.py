"""Text of tasks: built-in domains, a user's files, windows for batches."""

from tanbr_jax.data.batching import (
  TaskText,
  Windows,
  evaluation_windows,
  from_arrays,
  read_windows,
  sample_task_windows,
  sample_windows,
  token_ids,
)
from tanbr_jax.data.corpus import Corpus, load_corpus, select_tasks
from tanbr_jax.data.tokens import load_tokens, tokenise_corpus
from tanbr_jax.storage.cache import cache_dir

__all__ = [
  "Corpus",
  "TaskText",
  "Windows",
  "cache_dir",
  "evaluation_windows",
  "from_arrays",
  "load_corpus",
  "load_tokens",
  "read_windows",
  "sample_task_windows",
  "sample_windows",
  "select_tasks",
  "token_ids",
  "tokenise_corpus",
]
