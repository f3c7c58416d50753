"""Smaller models: what calibration text tells, pruning and merging experts."""

from tanbr_jax.compress.calibration import calibrate
from tanbr_jax.compress.expert_utility import peu
from tanbr_jax.compress.merging import (
  MERGES,
  merge_needs,
  with_constants,
  with_copies,
)
from tanbr_jax.compress.statistics import (
  NEEDS,
  CalibrationStatistics,
  load_statistics,
  save_statistics,
  total,
)

__all__ = [
  "MERGES",
  "NEEDS",
  "CalibrationStatistics",
  "calibrate",
  "load_statistics",
  "merge_needs",
  "peu",
  "save_statistics",
  "total",
  "with_constants",
  "with_copies",
]
