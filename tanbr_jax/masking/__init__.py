"""Fewer experts per token: learned masks (BEAM), and the other ways.

Each is a `reroute` or an `observe` of the seam (`tanbr_jax.moe.seam`), so that
no model knows which one it runs.
"""

from tanbr_jax.masking.activity import (
  Activity,
  MaskLosses,
  observe_activity,
  observe_masks,
  regulariser,
)
from tanbr_jax.masking.batch_aware import expert_similarity, oea, sere, xshare
from tanbr_jax.masking.fewer import (
  gate_ratios,
  naee_skip,
  smaller_k,
  top_p,
  xmoe,
)
from tanbr_jax.masking.mask_router import (
  MaskRouter,
  beam,
  beam_in_training,
  check_mask_router,
  init_mask_router,
)
from tanbr_jax.masking.moments import match_moments
from tanbr_jax.masking.null_experts import (
  init_null_router,
  null_experts,
  observe_balance,
)
from tanbr_jax.masking.top_any import init_top_any, observe_sparsity, top_any

__all__ = [
  "Activity",
  "MaskLosses",
  "MaskRouter",
  "beam",
  "beam_in_training",
  "check_mask_router",
  "expert_similarity",
  "gate_ratios",
  "init_mask_router",
  "init_null_router",
  "init_top_any",
  "match_moments",
  "naee_skip",
  "null_experts",
  "observe_activity",
  "observe_balance",
  "observe_masks",
  "observe_sparsity",
  "oea",
  "regulariser",
  "sere",
  "smaller_k",
  "top_any",
  "top_p",
  "xmoe",
  "xshare",
]
