"""Smaller models: what calibration text tells, pruning and merging experts."""

from tanbr_jax.compress.calibration import calibrate
from tanbr_jax.compress.expert_utility import peu
from tanbr_jax.compress.merging import (
  MERGES,
  merge_needs,
  with_constants,
  with_copies,
)
from tanbr_jax.compress.pruning import enumerate_keep, prune, reroute
from tanbr_jax.compress.ranking import (
  keep_global,
  keep_local,
  overlap,
  rank,
  read_pruned,
  read_rankings,
  union,
  write_pruned,
  write_rankings,
)
from tanbr_jax.compress.scores import SCORES, Score, generalist, score
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
  "SCORES",
  "CalibrationStatistics",
  "Score",
  "calibrate",
  "enumerate_keep",
  "generalist",
  "keep_global",
  "keep_local",
  "load_statistics",
  "merge_needs",
  "overlap",
  "peu",
  "prune",
  "rank",
  "read_pruned",
  "read_rankings",
  "reroute",
  "save_statistics",
  "score",
  "total",
  "with_constants",
  "with_copies",
  "union",
  "write_pruned",
  "write_rankings",
]
