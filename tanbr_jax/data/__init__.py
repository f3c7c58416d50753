"""Text of tasks: built-in domains, a user's folder, windows for batches."""

from tanbr_jax.data.batching import (
  TaskText,
  evaluation_windows,
  from_arrays,
  sample_task_windows,
  sample_windows,
)
from tanbr_jax.data.corpus import Corpus, load_corpus
from tanbr_jax.storage.cache import cache_dir

__all__ = [
  "Corpus",
  "TaskText",
  "cache_dir",
  "evaluation_windows",
  "from_arrays",
  "load_corpus",
  "sample_task_windows",
  "sample_windows",
]
