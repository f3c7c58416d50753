"""Mixture-of-Experts parts: experts, routing, forwards and merging."""

from tanbr_jax.moe.balance import (
  RouterLosses,
  load_balance_loss,
  observe_losses,
  update_correction_bias,
  z_loss,
)
from tanbr_jax.moe.capacity import expert_capacity, limit_capacity
from tanbr_jax.moe.expert_merging import merge
from tanbr_jax.moe.experts import Experts, init_experts, take_experts
from tanbr_jax.moe.feed_forward import FeedForward, apply, apply_all
from tanbr_jax.moe.forwards import (
  masked,
  merged,
  routed,
  routed_pairs,
  soft,
)
from tanbr_jax.moe.local_merging import (
  example_weights,
  merged_of_selected,
  merged_per_example,
  merged_per_segment,
  segment_weights,
)
from tanbr_jax.moe.routers import jitter, sparsemixer, top_k
from tanbr_jax.moe.routes import Routes, follow_routes
from tanbr_jax.moe.routing import (
  NO_EXPERT,
  Routing,
  apply_mask,
  check_routing,
  dense_gates,
  is_active,
  keep_pairs,
  normalise_gates,
  scale_gates,
)
from tanbr_jax.moe.scores import GroupLimit
from tanbr_jax.moe.seam import (
  Adjusted,
  MoeInput,
  MoeOutput,
  apply_block,
  apply_layer,
  mask_experts,
  needs_pair_outputs,
)
from tanbr_jax.moe.statistics import (
  ExpertStatistics,
  TokenStatistics,
  dropped_share,
  expert_statistics,
  observe_experts,
  observe_tokens,
  token_statistics,
  usage,
)

__all__ = [
  "NO_EXPERT",
  "Adjusted",
  "ExpertStatistics",
  "Experts",
  "FeedForward",
  "GroupLimit",
  "MoeInput",
  "MoeOutput",
  "RouterLosses",
  "Routes",
  "Routing",
  "TokenStatistics",
  "apply",
  "apply_all",
  "apply_block",
  "apply_layer",
  "apply_mask",
  "check_routing",
  "dense_gates",
  "dropped_share",
  "example_weights",
  "expert_capacity",
  "expert_statistics",
  "follow_routes",
  "init_experts",
  "is_active",
  "jitter",
  "keep_pairs",
  "limit_capacity",
  "load_balance_loss",
  "mask_experts",
  "masked",
  "merge",
  "merged",
  "merged_of_selected",
  "merged_per_example",
  "merged_per_segment",
  "needs_pair_outputs",
  "normalise_gates",
  "observe_experts",
  "observe_losses",
  "observe_tokens",
  "routed",
  "routed_pairs",
  "scale_gates",
  "segment_weights",
  "soft",
  "sparsemixer",
  "take_experts",
  "token_statistics",
  "top_k",
  "update_correction_bias",
  "usage",
  "z_loss",
]
