"""Choices that lower the number of distinct experts that a batch reads.

A decoding step reads every expert that any of its tokens chose, and its time
follows that number and not the pairs. Three methods of the literature, all
without training. With `num_steps` = S the tokens of a batch [B, S] stand for S
steps of B sequences each, which gives the steps' choices without decoding.
They can follow another reroute (`after`), such as BEAM's masks.

Letters: L layers with experts, N tokens, S steps, E experts, K experts per
token.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from tanbr_jax import moe
from tanbr_jax.checks.ranges import Range, Share
from tanbr_jax.kernels import selection
from tanbr_jax.masking import pairs
from tanbr_jax.masking.activity import by_step
from tanbr_jax.models import Model, Params
from tanbr_jax.moe import NO_EXPERT, MoeInput, MoeOutput, Routing, feed_forward
from tanbr_jax.moe.routing import is_active, is_expert


class _Rule(NamedTuple):
  """A choice in every layer; leaves of [L, ...]."""

  value: jax.Array
  rescales: jax.Array
  after: Partial | None
  similarity: jax.Array | None = None  # [L, E, E]


def oea(
  model: Model,
  num_own: int,
  *,
  num_steps: int = 1,
  after: Partial | None = None,
  keeps_gates: bool = False,
) -> Partial:
  """Experts that the batch reads anyway are used, others are not.

  Opportunistic Expert Activation (arXiv 2511.02237, 2025): each token brings
  its first k0 experts; of its others it keeps those that some token of the
  step brought.

  Args:
    model: with experts.
    num_own: k0, in [1, K].
    num_steps: S.
    after: a reroute whose choice this one starts from; None for the model's.
    keeps_gates: whether gates are not scaled to their old sum.

  Raises:
    ValueError: if a number is out of range.
  """
  pairs.num_layers(model)
  Range(1, model.config.num_selected, "[]").check(
    "num_own", num_own, is_integer=True
  )
  return _make(model, "oea", num_own, jnp.int32, num_steps, after, keeps_gates)


def xshare(
  model: Model,
  num_read: int,
  *,
  num_steps: int = 1,
  after: Partial | None = None,
  keeps_gates: bool = False,
) -> Partial:
  """The M experts of the largest gates in the step serve all its tokens.

  XShare (arXiv 2602.07265, 2026): the set of at most M experts that holds the
  most of the batch's gates; a sum over experts, so the M largest hold it. The
  pairs outside of the set are skipped [R].

  Args:
    model: with experts.
    num_read: M, in [1, E].
    num_steps: S.
    after: a reroute whose choice this one starts from; None for the model's.
    keeps_gates: whether gates are not scaled to their old sum.

  Raises:
    ValueError: if a number is out of range.
  """
  pairs.num_layers(model)
  Range(1, model.config.num_experts, "[]").check(
    "num_read", num_read, is_integer=True
  )
  return _make(
    model, "xshare", num_read, jnp.int32, num_steps, after, keeps_gates
  )


def sere(
  model: Model,
  num_own: int,
  similarity: jax.Array,
  *,
  least_similarity: Share = 0.0,
  num_steps: int = 1,
  after: Partial | None = None,
) -> Partial:
  """A token's later experts give way to the most similar of those read anyway.

  Similarity-based Expert Re-routing (arXiv 2602.07616, 2026): the experts
  among the first k0 of any of the step's tokens are read; a pair with another
  one goes to the most similar of them, with its gate, unless none is similar
  enough: then it stays.

  Args:
    model: with experts.
    num_own: k0, in [1, K].
    similarity: [L, E, E] of `expert_similarity`.
    least_similarity: what counts as similar enough.
    num_steps: S.
    after: a reroute whose choice this one starts from; None for the model's.

  Raises:
    ValueError: if a number is out of range or the similarity of another model.
  """
  num_layers, num_experts = pairs.num_layers(model), model.config.num_experts
  Range(1, model.config.num_selected, "[]").check(
    "num_own", num_own, is_integer=True
  )
  Range(0, 1, "[]").check("least_similarity", least_similarity)
  wanted = (num_layers, num_experts, num_experts)
  if similarity.shape != wanted:
    raise ValueError(
      f"similarity must be [L, E, E] = {wanted}, got {similarity.shape}"
    )
  made = _make(model, "sere", num_own, jnp.int32, num_steps, after, True)
  # What is not similar enough is no candidate.
  allowed = jnp.where(similarity >= least_similarity, similarity, -jnp.inf)
  (rule,) = made.args
  return Partial(made.func, rule._replace(similarity=allowed))


@functools.partial(jax.jit, static_argnums=0)
def expert_similarity(
  model: Model, params: Params, input_ids: jax.Array
) -> jax.Array:
  """Mean cosine similarity of the experts' outputs for the same tokens.

  Args:
    model: with experts.
    params: its parameters.
    input_ids: [B, S] calibration tokens without padding; all experts see all.

  Returns:
    [L, E, E] float32, ones on the diagonal.
  """
  observe = Partial(_similarity)
  return model.apply(params, input_ids, observe=observe)[1]


def _similarity(layer: MoeInput, output: MoeOutput) -> jax.Array:
  del output
  num_tokens = layer.hidden.shape[0]
  experts = jnp.arange(layer.experts.num_experts, dtype=jnp.int32)

  def one(expert: jax.Array) -> jax.Array:
    ids = jnp.full((num_tokens, 1), expert)
    routing = Routing(
      ids, jnp.ones((num_tokens, 1)), layer.routing.probabilities
    )
    own = feed_forward.without_shared(layer.experts)
    out = moe.routed(own, layer.hidden, routing).astype(jnp.float32)
    norm = jnp.linalg.norm(out, axis=-1, keepdims=True)
    return out / jnp.maximum(norm, jnp.finfo(jnp.float32).tiny)

  outputs = jax.lax.map(one, experts)
  return jnp.einsum("end,fnd->ef", outputs, outputs) / num_tokens


def _make(
  model: Model,
  name: str,
  value: int,
  dtype: Any,
  num_steps: int,
  after: Partial | None,
  keeps_gates: bool,
) -> Partial:
  Range(1).check("num_steps", num_steps, is_integer=True)
  rescales = pairs.rescales_gates(model) and not keeps_gates
  rule = _Rule(
    pairs.by_layer(model, value, dtype),
    pairs.by_layer(model, rescales, bool),
    after,
  )
  return Partial(_with_steps(name, num_steps), rule)


@functools.cache
def _with_steps(name: str, num_steps: int) -> functools.partial:
  functions = {"oea": _oea, "xshare": _xshare, "sere": _sere}
  return functools.partial(functions[name], num_steps=num_steps)


def _start(rule: _Rule, layer: MoeInput) -> tuple[Routing, jax.Array]:
  """The choice before, and [N, K, E] bool: its pairs but those of padding."""
  routing = layer.routing if rule.after is None else rule.after(layer)
  is_pair = is_active(routing) & layer.token_mask[:, None]
  return routing, is_expert(routing) & is_pair[:, :, None]


def _over_step(values: jax.Array, num_steps: int, reduce: Any) -> jax.Array:
  """[N, E] of [N, E]: the reduction over all tokens of a token's step."""
  steps = by_step(values, num_steps)
  all_alike = jnp.broadcast_to(
    reduce(steps, axis=1, keepdims=True), steps.shape
  )
  return all_alike.swapaxes(0, 1).reshape(values.shape)


def _brought(
  rule: _Rule, routing: Routing, is_pair: jax.Array, num_steps: int
) -> jax.Array:
  """[N, E] bool: the experts among the first k0 of a token of the step.

  The first that are not skipped: masks leave gaps.
  """
  place = jnp.cumsum(jnp.any(is_pair, axis=2), axis=1, dtype=jnp.int32)
  is_own = place <= rule.value
  is_brought = jnp.any(is_pair & is_own[:, :, None], axis=1)
  return _over_step(is_brought, num_steps, jnp.any)


def _oea(rule: _Rule, layer: MoeInput, *, num_steps: int) -> Routing:
  routing, is_pair = _start(rule, layer)
  is_read = _brought(rule, routing, is_pair, num_steps)
  is_kept = jnp.any(is_pair & is_read[:, None, :], axis=-1)
  return pairs.keep(routing, is_kept, rule.rescales)


def _xshare(rule: _Rule, layer: MoeInput, *, num_steps: int) -> Routing:
  routing, is_pair = _start(rule, layer)
  gates = routing.gates.astype(jnp.float32)[:, :, None]
  mass = jnp.sum(jnp.where(is_pair, gates, 0), axis=1)
  mass = _over_step(mass, num_steps, jnp.sum)
  is_read = selection.ranks(mass) < rule.value
  is_kept = jnp.any(is_pair & is_read[:, None, :], axis=-1)
  return pairs.keep(routing, is_kept, rule.rescales)


def _sere(rule: _Rule, layer: MoeInput, *, num_steps: int) -> Routing:
  routing, is_pair = _start(rule, layer)
  is_read = _brought(rule, routing, is_pair, num_steps)
  num_experts = is_read.shape[-1]
  ids = jnp.clip(routing.expert_ids, 0, num_experts - 1)
  # [N, K, E]: how similar each expert that is read is to the pair's own.
  similar = rule.similarity[ids]
  similar = jnp.where(is_read[:, None, :], similar, -jnp.inf)
  best = jnp.argmax(similar, axis=-1).astype(jnp.int32)
  is_own_read = jnp.take_along_axis(is_read, ids, axis=1)
  moves = ~is_own_read & (jnp.max(similar, axis=-1) > -jnp.inf)
  new = jnp.where(moves, best, routing.expert_ids)
  new = jnp.where(is_active(routing), new, NO_EXPERT)
  return routing._replace(expert_ids=new)
