"""Milliseconds of one layer's decision, and how far from optimal it is.

Letters: L layers, E experts, K experts per token.
"""

import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from experiments.wireless import radio
from experiments.wireless.settings import WirelessSettings
from experiments.wireless.studies import Ready, inputs_of
from tanbr_jax import wireless
from tanbr_jax.moe.seam import MoeInput, MoeOutput
from tanbr_jax.wireless import layer_energy, mixed_integer

# Experts, experts per token, state bits, bandwidth and deadline of the paper's
# set-ups: Switch-base-8, Mixtral-8x7B, GPT-OSS-20B; 16 bits a value.
DRAWN = (
  (8, 1, 768 * 16, 1e6, 0.7),
  (8, 2, 4096 * 16, 2e6, 0.074),
  (32, 4, 2880 * 16, 0.8e6, 0.35),
)


def timing(ready: Ready) -> list[dict[str, Any]]:
  """Milliseconds of a decision, and its gap, on a layer of the model and more.

  Besides the model's own layers: drawn layers of 64 tokens with 8 experts and
  K = 1, and with 32 experts and K = 4, the sizes of Switch and GPT-OSS.
  """
  settings = ready.settings
  rng = np.random.default_rng(settings.seed)
  seen = jax.jit(
    lambda params, ids: ready.model.apply(
      params, ids, observe=Partial(_routing, ())
    )[1]
  )(ready.params, inputs_of(ready.text.test[:1]))
  gates, ids = (np.asarray(part) for part in seen)
  share = settings.sweep.link_share
  cases = [
    (
      f"{settings.source.num_experts} experts, K={ids.shape[2]}, the model's",
      [
        (
          gates[layer].astype(np.float64),
          ids[layer],
          ready.table[layer],
          ready.realised.costs[layer][0].marginal_j,
          share * ready.skips[layer],
        )
        for layer in range(len(ids))
      ],
    )
  ]
  for shape in DRAWN:
    layers = [
      drawn_layer(rng, settings, *shape)
      for _ in range(settings.sweep.timing_repeats)
    ]
    cases.append((f"{shape[0]} experts, K={shape[1]}, drawn", layers))
  return [timed(name, layers) for name, layers in cases]


def _routing(
  tree: tuple[()], layer: MoeInput, output: MoeOutput
) -> tuple[jax.Array, jax.Array]:
  del tree, output
  return layer.routing.gates.astype(jnp.float32), layer.routing.expert_ids


def drawn_layer(
  rng: np.random.Generator,
  settings: WirelessSettings,
  experts: int,
  slots: int,
  state_bits: float,
  bandwidth_hz: float,
  deadline_s: float,
  *,
  tokens: int = 64,
) -> tuple[Any, ...]:
  """A layer of drawn gates and experts under the radio of a set-up. [R].

  Its helpers have no load and no compute time, and the uplink's energy alone
  counts, as nothing else is as convex.
  """
  gates = rng.dirichlet(np.ones(slots), tokens)
  ids = np.argsort(rng.gumbel(size=(tokens, experts)), axis=1)[:, :slots]
  # Outputs of experts as random directions around a common one.
  outputs = rng.normal(size=(experts, 16)) + 1.5 * rng.normal(size=(1, 16))
  outputs = np.concatenate([outputs, np.zeros((1, 16))])
  table = np.linalg.norm(outputs[:-1, None] - outputs[None], axis=2)
  gains = radio.draw_gains(
    settings.radio,
    seed=int(rng.integers(2**31)),
    realisations=1,
    layers=1,
    experts=experts,
  )[0, 0]
  nothing = np.zeros(experts)
  costs = layer_energy.layer_costs(
    layer_energy.Nodes(
      is_local=nothing > 0,
      load_s=nothing,
      compute_s=nothing,
      load_j=nothing,
      compute_j=nothing,
    ),
    layer_energy.Link(
      state_bits=state_bits,
      bandwidth_hz=bandwidth_hz,
      deadline_s=deadline_s,
      counts_downlink=False,
    ),
    gain=gains,
    most_states=tokens * slots,
  )
  budget = 0.2 * table[:, -1].mean()
  return gates, ids, table, costs.marginal_j, budget


def timed(name: str, layers: list[tuple[Any, ...]]) -> dict[str, Any]:
  """Decides every layer twice and times the second time."""
  took, gaps, methods = [], [], set()
  for *arguments, budget in layers:
    try:
      for _ in range(2):  # the second call is timed
        start = time.perf_counter()
        found = wireless.solve_prefill(*arguments, budget=budget)
        seconds = time.perf_counter() - start
    except wireless.InfeasibleError:
      continue  # the radio of that layer is too poor for its budget
    took.append(1e3 * seconds)
    gaps.append(1 - found.lower_bound_j / max(found.energy_j, 1e-300))
    methods.add(found.method)
  if not took:
    return {"case": name, "method": "none feasible"}
  return {
    "case": name,
    "method": ", ".join(sorted(methods)),
    "median_ms": float(np.median(took)),
    "largest_ms": float(np.max(took)),
    "mean_gap": float(np.mean(gaps)),
    "largest_gap": float(np.max(gaps)),
  }


def proven_gap(layer: tuple[Any, ...], *, most_seconds: float) -> float:
  """The gap of a layer against HiGHS's own bound."""
  *arguments, budget = layer
  found = wireless.solve_prefill(*arguments, budget=budget)
  exact = mixed_integer.prefill_milp(
    *arguments, budget=budget, most_seconds=most_seconds
  )
  bound = max(exact.lower_bound_j, found.lower_bound_j)
  return 1 - bound / found.energy_j
