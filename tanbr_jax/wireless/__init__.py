"""Experts spread over wireless nodes, chosen for energy within an accuracy.

SiftMoE (2026) replaces or skips experts so that radio energy is least while
every token's deviation stays within a budget. Formulas that its digest does not
state are reconstructions, marked [R].
"""

from tanbr_jax.wireless import layer_costs
from tanbr_jax.wireless.channels import (
  path_gain,
  rate_bits_per_s,
  uplink_energy_j,
)
from tanbr_jax.wireless.decode import select_decode
from tanbr_jax.wireless.instance import InfeasibleError
from tanbr_jax.wireless.prefill import Choice, select_prefill, solve_prefill

__all__ = [
  "Choice",
  "InfeasibleError",
  "layer_costs",
  "path_gain",
  "rate_bits_per_s",
  "select_decode",
  "select_prefill",
  "solve_prefill",
  "uplink_energy_j",
]
