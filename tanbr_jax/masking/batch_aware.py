"""Choices that lower the number of distinct experts that a batch reads.

A decoding step reads every expert that any of its tokens chose, and its time
follows that number and not the pairs. Three methods of the literature, all
without training. With `num_steps` = S the tokens of a batch [B, S] stand for S
steps of B sequences each, which gives the steps' choices without decoding.
They can follow another reroute (`after`), such as BEAM's masks: a token then
has as many experts as that one left it, and none that it skipped.

Letters: L layers with experts, N tokens, S steps, E experts, K experts per
token.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from tanbr_jax import kernels, moe
from tanbr_jax.checks.ranges import Range, Share
from tanbr_jax.kernels import selection
from tanbr_jax.masking import pairs
from tanbr_jax.masking.activity import by_step
from tanbr_jax.models import Model, Params
from tanbr_jax.moe import NO_EXPERT, MoeInput, MoeOutput, Routing, feed_forward
from tanbr_jax.moe.routing import is_active, is_expert
from tanbr_jax.moe.scores import pick


class _Rule(NamedTuple):
  """A choice in every layer; leaves of [L, ...]."""

  value: jax.Array
  rescales: jax.Array
  after: Partial | None
  brings: Partial | None = None
  similarity: jax.Array | None = None  # [L, E, E]


def oea(
  model: Model,
  num_own: int | None = None,
  *,
  brings: Partial | None = None,
  num_steps: int = 1,
  after: Partial | None = None,
  keeps_gates: bool = False,
) -> Partial:
  """Experts that the batch reads anyway are used, others are not.

  Opportunistic Expert Activation (arXiv 2511.02237, 2025): each token brings
  its first k0 experts; it is served by the K of largest probability among all
  that some token of the step brought.

  Args:
    model: with experts.
    num_own: k0, in [1, K]; None where `brings` stands for it.
    brings: a reroute that keeps those of a token's experts that it brings, such
      as `xmoe`'s, so that sure tokens bring fewer ([R]: not the source's).
    num_steps: S.
    after: a reroute whose choice this one starts from; None for the model's.
    keeps_gates: whether gates are not scaled to their old sum, as they are not
      after another reroute.

  Raises:
    ValueError: if a number is out of range, or not one of `num_own` and
      `brings` is given.
  """
  pairs.num_layers(model)
  if (num_own is None) == (brings is None):
    raise ValueError(
      f"needs num_own or brings, got num_own={num_own}, brings={brings}"
    )
  most = model.config.num_selected
  if num_own is not None:
    Range(1, most, "[]").check("num_own", num_own, is_integer=True)
    most = num_own
  return _make(model, "oea", most, num_steps, after, keeps_gates, brings=brings)


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
  most of the batch's gates; a sum over experts, so the M largest hold it. Each
  token is served by the K of largest probability in the set.

  Args:
    model: with experts.
    num_read: M, in [1, E].
    num_steps: S.
    after: a reroute whose choice this one starts from; None for the model's.
    keeps_gates: whether gates are not scaled to their old sum, as they are not
      after another reroute.

  Raises:
    ValueError: if a number is out of range.
  """
  pairs.num_layers(model)
  Range(1, model.config.num_experts, "[]").check(
    "num_read", num_read, is_integer=True
  )
  return _make(model, "xshare", num_read, num_steps, after, keeps_gates)


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
  # What is not similar enough is no candidate.
  allowed = jnp.where(similarity >= least_similarity, similarity, -jnp.inf)
  return _make(model, "sere", num_own, num_steps, after, similarity=allowed)


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
  num_steps: int,
  after: Partial | None,
  keeps_gates: bool = True,
  **given: Any,
) -> Partial:
  Range(1).check("num_steps", num_steps, is_integer=True)
  # Gates of masked pairs are not given to the others.
  rescales = pairs.rescales_gates(model) and not keeps_gates and after is None
  rule = _Rule(
    pairs.by_layer(model, value, jnp.int32),
    pairs.by_layer(model, rescales, bool),
    after,
    **given,
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
  if rule.brings is not None:
    kept = rule.brings(layer._replace(routing=routing))
    is_pair &= is_expert(kept)
  is_read = _brought(rule, routing, is_pair, num_steps)
  return _select_again(rule, layer, routing, is_read)


def _xshare(rule: _Rule, layer: MoeInput, *, num_steps: int) -> Routing:
  routing, is_pair = _start(rule, layer)
  gates = routing.gates.astype(jnp.float32)[:, :, None]
  mass = jnp.sum(jnp.where(is_pair, gates, 0), axis=1)
  mass = _over_step(mass, num_steps, jnp.sum)
  is_read = selection.ranks(mass) < rule.value
  return _select_again(rule, layer, routing, is_read)


def _select_again(
  rule: _Rule, layer: MoeInput, routing: Routing, is_read: jax.Array
) -> Routing:
  """The best experts [N, K] among those that are read [N, E]."""
  before = layer.routing
  # What `after` skipped stays skipped, and as many experts as it left are used.
  was_chosen = jnp.any(is_expert(before), axis=1)
  is_left = jnp.any(is_expert(routing), axis=1)
  is_open = is_read & (is_left | ~was_chosen)
  num_left = jnp.sum(is_active(routing), axis=1, dtype=jnp.int32)
  scores = jnp.where(is_open, before.probabilities, -jnp.inf)
  ids = kernels.largest_ids(scores, before.expert_ids.shape[1])
  shares = pick(scores, ids)
  rank = jnp.arange(ids.shape[1], dtype=jnp.int32)
  is_used = (shares > -jnp.inf) & (rank[None] < num_left[:, None])
  shares = jnp.where(is_used, shares, 0)
  # The model's own gates are these probabilities times a number of the token.
  own = jnp.where(
    is_active(before), pairs.of_pairs(before.probabilities, before), 0
  )
  total = lambda x: jnp.sum(x, axis=1, keepdims=True)  # noqa: E731
  gates = shares * _over(total(before.gates), total(own))
  rescaled = gates * _over(total(before.gates), total(gates))
  return Routing(
    jnp.where(is_used, ids, NO_EXPERT),
    jnp.where(rule.rescales, rescaled, gates),
    before.probabilities,
  )


def _over(numerator: jax.Array, denominator: jax.Array) -> jax.Array:
  """The quotient; 0 / 0 is 0."""
  is_zero = denominator == 0
  return numerator / jnp.where(is_zero, jnp.ones_like(denominator), denominator)


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
