"""Ends runs where a test wants it."""

import contextlib

from tanbr_jax.online.chunk_store import ChunkStore


@contextlib.contextmanager
def interrupted(*, after, error=KeyboardInterrupt):
  """Raises an error once a run has saved its chunk number `after`."""
  save = ChunkStore.save

  def save_and_stop(self, index, *args):
    save(self, index, *args)
    if index == after:
      raise error

  ChunkStore.save = save_and_stop
  try:
    yield
  finally:
    ChunkStore.save = save
