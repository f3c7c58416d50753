"""Merging experts: every method into one dense block or into groups."""

from tanbr_jax.compress.merging.assembly import with_constants, with_copies
from tanbr_jax.compress.merging.catalogue import (
  CATALOGUE,
  GROUPINGS,
  merge_needs,
)
from tanbr_jax.compress.merging.methods import MERGES

__all__ = [
  "CATALOGUE",
  "GROUPINGS",
  "MERGES",
  "merge_needs",
  "with_constants",
  "with_copies",
]
