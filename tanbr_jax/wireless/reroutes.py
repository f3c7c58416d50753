"""Policies in a model: reroutes that ask the host, layer by layer.

The policies are searches over NumPy arrays, hence `jax.pure_callback`. One
decision is for the n consecutive tokens of one radio realisation: a batch of R
sequences has R of them. What the callback gets is float32; energies are counted
afterwards from the ids, in float64, by `energies_j`. On a CPU with few threads
a program with such calls may wait for itself (jax-ml/jax issue 25861): before
JAX is used, `jax.config.update("jax_cpu_enable_async_dispatch", False)`.

Letters: L layers, R realisations, n tokens of each, N = R n, K experts per
token, E experts, M pairs at most.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from tanbr_jax.moe.routing import Routing
from tanbr_jax.moe.seam import MoeInput, MoeOutput
from tanbr_jax.wireless import instance, policies
from tanbr_jax.wireless.layer_energy import LayerCosts
from tanbr_jax.wireless.units import check_not_negative

# A policy is a number inside of a program, so that all share one.
_NAMES = sorted(policies.POLICIES)


def reroute(
  policy: str,
  *,
  dissimilarity: np.ndarray,
  marginal_j: np.ndarray,
  budgets: Any,
  latency_s: np.ndarray | None = None,
  knob: float = 0.0,
) -> Partial:
  """A reroute of a policy.

  Args:
    policy: a name of `policies.POLICIES`.
    dissimilarity: [L, E, E + 1].
    marginal_j: [L, R, E, M] each further pair's energy, inf = cannot.
    budgets: [L], or one for all layers, of a token's deviation.
    latency_s: [L, R, E] of one state, for WDMoE; None is one second for all.
    knob: the policy's parameter.

  Raises:
    ValueError: the policy is unknown, a shape does not fit or a budget is
      negative.
  """
  if policy not in policies.POLICIES:
    raise ValueError(f"policy must be one of {_NAMES}, got {policy!r}")
  layers, experts = dissimilarity.shape[:2]
  if marginal_j.ndim != 4 or (
    marginal_j.shape[0] != layers or marginal_j.shape[2] != experts
  ):
    raise ValueError(
      f"marginal_j must be [L, R, E, M] for L={layers}, E={experts}, got "
      f"{list(marginal_j.shape)}"
    )
  check_not_negative("budgets", np.asarray(budgets, np.float64))
  if latency_s is None:
    latency_s = np.ones(marginal_j.shape[:3])
  # float32 has no numbers beyond 3e38: such energies cannot be paid either.
  with np.errstate(over="ignore"):
    data = policies.Layer(
      dissimilarity=np.asarray(dissimilarity, np.float32),
      marginal_j=np.asarray(marginal_j, np.float32),
      latency_s=np.asarray(latency_s, np.float32),
      budget=np.broadcast_to(np.asarray(budgets, np.float32), (layers,)),
      knob=np.full(layers, knob, np.float32),
    )
  index = np.full(layers, _NAMES.index(policy), np.int32)
  return Partial(_reroute, *jax.tree.map(jnp.asarray, (index, data)))


def _reroute(
  index: jax.Array, data: policies.Layer, layer: MoeInput
) -> Routing:
  routing = layer.routing
  ids, gates = jax.pure_callback(
    _decide,
    (
      jax.ShapeDtypeStruct(routing.expert_ids.shape, jnp.int32),
      jax.ShapeDtypeStruct(routing.gates.shape, jnp.float32),
    ),
    index,
    routing.gates.astype(jnp.float32),
    routing.expert_ids,
    routing.probabilities,
    data,
    vmap_method="sequential",
  )
  return routing._replace(
    expert_ids=ids, gates=gates.astype(routing.gates.dtype)
  )


def _decide(
  index: jax.Array,
  gates: jax.Array,
  expert_ids: jax.Array,
  probabilities: jax.Array,
  data: policies.Layer,
) -> tuple[np.ndarray, np.ndarray]:
  policy = policies.POLICIES[_NAMES[int(index)]]
  gates = np.asarray(gates, np.float64)
  ids, probabilities = np.asarray(expert_ids), np.asarray(probabilities)
  table = np.asarray(data.dissimilarity, np.float64)
  marginal = np.asarray(data.marginal_j, np.float64)
  latency = np.asarray(data.latency_s, np.float64)
  found_ids, found_gates = [], []
  realisations = len(marginal)
  parts = zip(
    np.split(gates, realisations),
    np.split(ids, realisations),
    np.split(probabilities, realisations),
    strict=True,
  )
  for place, part in enumerate(parts):
    new_ids, new_gates = policy(
      *part,
      policies.Layer(
        table,
        marginal[place],
        latency[place],
        float(data.budget),
        float(data.knob),
      ),
    )
    found_ids.append(new_ids)
    found_gates.append(new_gates)
  return (
    np.concatenate(found_ids).astype(np.int32),
    np.concatenate(found_gates).astype(np.float32),
  )


def observe_ids(
  tree: tuple[()], layer: MoeInput, output: MoeOutput
) -> jax.Array:
  """For `observe=Partial(observe_ids, ())`: the experts used, [N, K]."""
  del tree, output
  return layer.routing.expert_ids


def energies_j(ids: np.ndarray, costs: list[list[LayerCosts]]) -> np.ndarray:
  """The energy of each layer and realisation.

  Args:
    ids: [L, N, K] of `observe_ids`.
    costs: of each of L layers and R realisations.

  Returns:
    [L, R] joules; inf where an expert got more than it can serve.
  """
  layers, realisations = len(costs), len(costs[0])
  parts = np.asarray(ids).reshape(layers, realisations, -1)
  found = np.empty((layers, realisations))
  for layer in range(layers):
    for index in range(realisations):
      energy = costs[layer][index].energy_j
      loads = instance.loads_of(parts[layer, index], len(energy))
      found[layer, index] = energy[np.arange(len(energy)), loads].sum()
  return found
