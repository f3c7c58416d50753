"""How far a layer's output moves when experts are replaced or skipped.

The bound: |sum_k g_k (E_i - E_phi(i))(x)| <= sum_k g_k |E_i(x) - E_phi(i)(x)|,
over the pairs that change, E_0 = 0 for skipping. It holds for every token with
that token's own outputs, and is an equality for one expert. [R] The paper's
table holds a mean of |E_i - E_j| over calibration tokens routed to i: that is
an estimate and not a bound. Its maximum and quantiles are estimates as well, on
other tokens; how often they hold is measured, see `coverage`.

Letters: L layers, N tokens, K experts per token, E experts, D model width.
"""

import hashlib
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from tanbr_jax import models, moe
from tanbr_jax.moe import feed_forward
from tanbr_jax.moe.experts import Experts
from tanbr_jax.moe.routing import Routing
from tanbr_jax.moe.seam import MoeInput, MoeOutput


class Tables(NamedTuple):
  """Dissimilarities of one model's experts.

  Attributes:
    values: [L, E, E + 1] float64; the last column is skipping.
    statistic: "mean", "max" or a quantile such as "0.9".
    fingerprint: of the model's experts.
  """

  values: np.ndarray
  statistic: str
  fingerprint: str


class Deviations(NamedTuple):
  """What replacing a layer's experts does to every token.

  Attributes:
    measured: [N] the norm of the layer output's change.
    bound: [N] the exact bound, of the token's own outputs.
    estimate: [N] the table's.
  """

  measured: jax.Array
  bound: jax.Array
  estimate: jax.Array


def all_outputs(experts: Experts, hidden: jax.Array) -> jax.Array:
  """[N, E, D], every expert's own output for every token, ungated.

  Args:
    experts: E stacked experts; what is shared is left out.
    hidden: [N, D].
  """
  num_tokens, num_experts = hidden.shape[0], experts.num_experts
  ids = jnp.arange(num_experts, dtype=jnp.int32)[None]
  shape = (num_tokens, num_experts)
  everywhere = Routing(
    jnp.broadcast_to(ids, shape),
    jnp.ones(shape, hidden.dtype),
    jnp.ones(shape, jnp.float32),
  )
  own = feed_forward.without_shared(experts)
  return moe.routed_pairs(own, hidden, everywhere)[1]


def distances(outputs: jax.Array) -> jax.Array:
  """[N, E, E + 1] float32 norms of differences of outputs [N, E, D].

  The last column is the output's own norm.
  """
  outputs = outputs.astype(jnp.float32)
  extended = jnp.pad(outputs, ((0, 0), (0, 1), (0, 0)))

  # One expert after the other: [N, E, E + 1, D] would be large.
  def from_one(one: jax.Array) -> jax.Array:
    return jnp.linalg.norm(one[:, None] - extended, axis=-1)

  found = jax.lax.map(from_one, jnp.moveaxis(outputs, 1, 0))
  return jnp.moveaxis(found, 0, 1)


def _observe(
  tree: tuple[()], layer: MoeInput, output: MoeOutput
) -> tuple[jax.Array, jax.Array]:
  del tree, output
  found = distances(all_outputs(layer.experts, layer.hidden))
  return found, moe.dense_gates(layer.routing) > 0


def calibrate(
  model: models.Model,
  params: models.Params,
  input_ids: jax.Array,
  *,
  statistics: tuple[str, ...] = ("mean",),
) -> dict[str, Tables]:
  """Makes tables of |E_i(x) - E_j(x)|, tokens routed to i [R].

  An expert that no token was routed to takes all tokens.

  Args:
    model: with experts.
    params: its parameters.
    input_ids: [B, S] calibration tokens.
    statistics: each "mean", "max" or a quantile in (0, 1) such as "0.9".

  Returns:
    A table for each statistic.

  Raises:
    ValueError: if a statistic is unknown or the model is dense.
  """
  if model.config.num_experts is None:
    raise ValueError("calibrate needs experts, got num_experts=None")
  reduces = {name: _reduction(name) for name in statistics}
  found, is_routed = jax.jit(
    lambda params, ids: model.apply(params, ids, observe=Partial(_observe, ()))
  )(params, input_ids)[1]
  found = np.asarray(found, np.float64)
  is_routed = np.asarray(is_routed)
  is_routed = is_routed | ~is_routed.any(axis=1, keepdims=True)
  mark = fingerprint(params, model.config.moe_layers)
  layers, _, experts, columns = found.shape
  tables = {}
  for name, reduce in reduces.items():
    values = np.empty((layers, experts, columns))
    for layer in range(layers):
      for expert in range(experts):
        rows = found[layer, is_routed[layer, :, expert], expert]
        values[layer, expert] = reduce(rows)
    tables[name] = Tables(values, name, mark)
  return tables


def _reduction(name: str) -> Any:
  if name in ("mean", "max"):
    return lambda rows: getattr(rows, name)(axis=0)
  try:
    share = float(name)
  except ValueError:
    share = -1.0
  if not 0 < share < 1:
    raise ValueError(
      f"statistic must be 'mean', 'max' or in (0, 1), got {name!r}"
    )
  return lambda rows: np.quantile(rows, share, axis=0)


def fingerprint(params: models.Params, moe_layers: Any) -> str:
  """Tells a model's experts from another's: a hash of a row of each layer."""
  rows = [
    np.asarray(
      params["params"][f"layer_{i}"]["experts"]["stack"].w_in[:, 0], np.float32
    )
    for i in moe_layers
  ]
  content = b"".join(row.tobytes() for row in rows)
  return hashlib.sha256(content).hexdigest()[:16]


def check_tables(
  tables: Tables, model: models.Model, params: models.Params
) -> None:
  """Refuses a table of another model.

  Raises:
    ValueError: with the shapes, or with the fingerprints.
  """
  layers, experts = len(model.config.moe_layers), model.config.num_experts
  expected = (layers, experts, experts + 1)
  if tables.values.shape != expected:
    raise ValueError(
      "the table must be of this model, [L, E, E + 1] = "
      f"{list(expected)}, got {list(tables.values.shape)}"
    )
  mark = fingerprint(params, model.config.moe_layers)
  if tables.fingerprint != mark:
    raise ValueError(
      "the table must be of this model's experts, "
      f"{mark}, got those of {tables.fingerprint}"
    )


def observe_deviations(reroute: Partial, table: jax.Array) -> Partial:
  """An observer of what a reroute would do to a layer, on the model's states.

  Args:
    reroute: what replaces; its ids and gates are compared with the router's.
    table: [L, E, E + 1], for the estimates.

  Returns:
    An observer whose `Deviations` have a leading [L].
  """
  return Partial(_deviations, reroute, jnp.asarray(table, jnp.float32))


def _deviations(
  reroute: Partial, table: jax.Array, layer: MoeInput, output: MoeOutput
) -> Deviations:
  del output
  outputs = all_outputs(layer.experts, layer.hidden).astype(jnp.float32)
  return measure(outputs, layer.routing, reroute(layer), table)


def measure(
  outputs: jax.Array, before: Routing, after: Routing, table: jax.Array
) -> Deviations:
  """The deviations of replacing one routing by another with the same gates.

  Args:
    outputs: [N, E, D] float32 of `all_outputs`.
    before: the router's choice [N, K].
    after: the replacement [N, K], slot by slot; a skipped slot has no gate.
    table: [E, E + 1].
  """
  num_experts = outputs.shape[1]
  extended = jnp.pad(outputs, ((0, 0), (0, 1), (0, 0)))
  # Skipped pairs, -1, are the column after the last expert.
  was = jnp.where(before.expert_ids < 0, num_experts, before.expert_ids)
  now = jnp.where(after.expert_ids < 0, num_experts, after.expert_ids)
  take = lambda ids: jnp.take_along_axis(  # noqa: E731
    extended, ids[:, :, None], axis=1
  )
  change = before.gates.astype(jnp.float32)[:, :, None] * (
    take(was) - take(now)
  )
  rows = jnp.pad(table, ((0, 1), (0, 0)))
  estimate = before.gates.astype(jnp.float32) * rows[was, now]
  return Deviations(
    measured=jnp.linalg.norm(change.sum(axis=1), axis=-1),
    bound=jnp.linalg.norm(change, axis=-1).sum(axis=1),
    estimate=jnp.where(was == now, 0.0, estimate).sum(axis=1),
  )


def coverage(measured: np.ndarray, estimate: np.ndarray) -> float:
  """The share of changed tokens whose deviation is at most its estimate.

  Tokens that do not deviate are left out; 1 if there are no others.
  """
  measured, estimate = np.asarray(measured), np.asarray(estimate)
  changed = (measured > 0) | (estimate > 0)
  if not changed.any():
    return 1.0
  return float(np.mean(measured[changed] <= estimate[changed]))
