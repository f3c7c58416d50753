"""Language models whose experts can be merged."""

from tanbr_jax.models.byte_lm import ByteLM, ByteLMConfig
from tanbr_jax.models.merging import (
  Params,
  expert_bytes,
  merge,
  upcycle,
)
from tanbr_jax.models.scoring import (
  Score,
  route,
  score,
  score_logits,
  task_usage,
)

__all__ = [
  "ByteLM",
  "ByteLMConfig",
  "Params",
  "Score",
  "expert_bytes",
  "merge",
  "route",
  "score",
  "score_logits",
  "task_usage",
  "upcycle",
]
