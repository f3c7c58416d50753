"""A smaller K whose layers' outputs keep their mean and scale (LDA).

arXiv 2609.09241 (2026): with gates that are rescaled, fewer experts raise the
sum of squared gates and so the scale of what a layer adds. In every dimension
of every layer

  y' = s_K (y - mu_k) / (s_k + eps) + mu_K

with means and standard deviations of the layer's output with K and with k
experts, over some thousand tokens, the layers before at full K. Nothing is
trained.

Letters: L layers with experts, B sequences, S tokens, D model width, K experts
per token, k fewer.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from tanbr_jax import moe
from tanbr_jax.checks.ranges import NonNegative, checked
from tanbr_jax.masking import pairs
from tanbr_jax.models import Model, Params
from tanbr_jax.moe import Adjusted, MoeInput, MoeOutput


class Moments(NamedTuple):
  """Of the layers' outputs, over calibration tokens.

  Attributes:
    mean: [L, D] float32.
    deviation: [L, D] float32.
  """

  mean: jax.Array
  deviation: jax.Array


class Match(NamedTuple):
  """A reroute's tree: leaves of [L, ...].

  Attributes:
    reroute: what chooses fewer experts.
    scale: [L, D].
    shift: [L, D].
  """

  reroute: Partial
  scale: jax.Array
  shift: jax.Array


@checked
def match_moments(
  model: Model,
  params: Params,
  input_ids: jax.Array,
  reroute: Partial,
  *,
  eps: NonNegative = 1e-6,
) -> Partial:
  """A reroute whose outputs are mapped to the full model's moments.

  Args:
    model: with experts.
    params: its parameters.
    input_ids: [B, S] calibration tokens without padding; the source takes
      4 sequences of 2,048.
    reroute: what chooses fewer experts, such as `smaller_k(model, k)`.
    eps: added to the standard deviation that is divided by.
  """
  pairs.num_layers(model)
  full, fewer = output_moments(model, params, input_ids, reroute)
  scale = full.deviation / (fewer.deviation + jnp.float32(eps))
  shift = full.mean - scale * fewer.mean
  return Partial(_matched, Match(reroute, scale, shift))


def output_moments(
  model: Model, params: Params, input_ids: jax.Array, reroute: Partial
) -> tuple[Moments, Moments]:
  """The moments of every layer's output at full K, and with the reroute.

  Both of the same inputs, those of the full model.
  """
  _, seen = _observed(model)(params, input_ids, reroute)
  return seen


@functools.cache
def _observed(model: Model) -> Callable[..., Any]:
  def run(params: Params, input_ids: jax.Array, reroute: Partial) -> Any:
    return model.apply(params, input_ids, observe=Partial(_both, reroute))

  return jax.jit(run)


def _both(
  reroute: Partial, layer: MoeInput, output: MoeOutput
) -> tuple[Moments, Moments]:
  fewer = moe.routed(layer.experts, layer.hidden, reroute(layer))
  return _moments(output.output), _moments(fewer)


def _moments(rows: jax.Array) -> Moments:
  rows = rows.astype(jnp.float32)
  return Moments(jnp.mean(rows, axis=0), jnp.std(rows, axis=0))


def _matched(match: Match, layer: MoeInput) -> Adjusted:
  return Adjusted(match.reroute(layer), match.scale, match.shift)
