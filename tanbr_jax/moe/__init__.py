"""Mixture-of-Experts parts: experts, routing, forwards and merging."""

from tanbr_jax.moe.experts import Experts, FeedForward, init_experts, merge
from tanbr_jax.moe.forwards import merged, routed
from tanbr_jax.moe.routing import (
  Routing,
  load_balance_loss,
  task_usage,
  top_k,
  usage,
  z_loss,
)
from tanbr_jax.moe.search import maximise_on_simplex

__all__ = [
  "Experts",
  "FeedForward",
  "Routing",
  "init_experts",
  "load_balance_loss",
  "maximise_on_simplex",
  "merge",
  "merged",
  "routed",
  "task_usage",
  "top_k",
  "usage",
  "z_loss",
]
