"""Experts spread over wireless nodes, chosen for energy within an accuracy.

SiftMoE (2026) replaces or skips experts so that radio energy is least while
every token's deviation stays within a budget. Formulas that its digest does not
state are reconstructions, marked [R].

A layer's way: gains of `channels`, `fading` and `mobility` -> `layer_costs` ->
marginal energies -> `select_prefill` or `select_decode`, or the other methods
of `policies`; in a model by `reroute`, with tables of `calibrate`.
"""

from tanbr_jax.wireless.channels import (
  path_gain,
  rate_bits_per_s,
  uplink_energy_j,
)
from tanbr_jax.wireless.decode import select_decode
from tanbr_jax.wireless.deviation import (
  Tables,
  calibrate,
  check_tables,
  observe_deviations,
)
from tanbr_jax.wireless.exhaustive import brute_force
from tanbr_jax.wireless.fading import Fading, gamma, rayleigh, rician
from tanbr_jax.wireless.instance import InfeasibleError
from tanbr_jax.wireless.layer_energy import Link, Nodes, layer_costs
from tanbr_jax.wireless.mixed_integer import prefill_milp
from tanbr_jax.wireless.policies import POLICIES
from tanbr_jax.wireless.prefill import Choice, select_prefill, solve_prefill
from tanbr_jax.wireless.reroutes import energies_j, observe_ids, reroute

__all__ = [
  "POLICIES",
  "Choice",
  "Fading",
  "InfeasibleError",
  "Link",
  "Nodes",
  "Tables",
  "brute_force",
  "calibrate",
  "check_tables",
  "energies_j",
  "gamma",
  "layer_costs",
  "observe_deviations",
  "observe_ids",
  "path_gain",
  "prefill_milp",
  "rate_bits_per_s",
  "rayleigh",
  "reroute",
  "rician",
  "select_decode",
  "select_prefill",
  "solve_prefill",
  "uplink_energy_j",
]
