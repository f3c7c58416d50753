"""Scores of a model on text, and where its routers send it.

Letters: B windows, S tokens of context, V tasks (of logits: the vocabulary), E
experts.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from tanbr_jax import data
from tanbr_jax.models.base import Model, MoeInput, MoeOutput, Params

# Logits that are there at a time, 1 GiB of float32.
MOST_LOGITS = 2**28


class Score(NamedTuple):
  """Means over a window's scored tokens.

  Attributes:
    loss: [B] float32, cross-entropy of the next token, nats.
    accuracy: [B] float32, share of next tokens that are the likeliest one.
  """

  loss: jax.Array
  accuracy: jax.Array


def score(model: Model, params: Params, windows: jax.Array) -> Score:
  """Scores every window.

  Args:
    model: routed or dense.
    params: its parameters.
    windows: [B, S + 1] integer tokens; the last S are predicted, and scored
      unless they are marked, see `data.batching`.

  Returns:
    A `Score` of [B] values.
  """

  def part(windows: jax.Array) -> Score:
    read = data.read_windows(windows)
    logits = model.apply(params, input_ids=read.inputs)
    return score_logits(logits, read.targets, read.is_scored)

  return over_windows(part, windows, vocab_size=model.config.vocab_size)


def over_windows(
  function: Callable[[jax.Array], Any], windows: jax.Array, *, vocab_size: int
) -> Any:
  """Applies a function of windows to all, or part by part where they are many.

  The logits of a batch are its largest array where the vocabulary is large.
  Above `MOST_LOGITS` of them the batch is cut into equal parts, one after the
  other; a derivative then computes each part's logits twice.

  Args:
    function: [b, S + 1] -> a tree of arrays [b, ...], a value a window.
    windows: [B, S + 1].
    vocab_size: V of the logits [b, S, V] that the function computes.

  Returns:
    The tree, of arrays [B, ...].
  """
  count, length = windows.shape
  most = max(1, MOST_LOGITS // (vocab_size * max(1, length - 1)))
  if count <= most:
    return function(windows)
  size = max(n for n in range(1, most + 1) if count % n == 0)
  parts = windows.reshape(-1, size, length)
  found = jax.lax.map(jax.checkpoint(function), parts)
  return jax.tree.map(lambda x: x.reshape(count, *x.shape[2:]), found)


def score_logits(
  logits: jax.Array, targets: jax.Array, is_scored: jax.Array | None = None
) -> Score:
  """Scores logits [B, S, V] against the next tokens [B, S] int32.

  Args:
    logits: [B, S, V].
    targets: [B, S].
    is_scored: [B, S] bool, which of them count; None for all.
  """
  chosen = jnp.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]
  loss = jax.nn.logsumexp(logits, axis=-1) - chosen
  is_right = jnp.argmax(logits, axis=-1).astype(targets.dtype) == targets
  return Score(
    loss=mean_over_scored(loss, is_scored),
    accuracy=mean_over_scored(is_right.astype(jnp.float32), is_scored),
  )


def mean_over_scored(
  values: jax.Array, is_scored: jax.Array | None
) -> jax.Array:
  """The mean [B] of values [B, S] where they count; 0 where none does."""
  if is_scored is None:
    return jnp.mean(values, axis=-1)
  counts = jnp.sum(is_scored.astype(values.dtype), axis=-1)
  total = jnp.sum(jnp.where(is_scored, values, 0.0), axis=-1)
  return total / jnp.maximum(counts, 1.0)


@functools.partial(jax.jit, static_argnames="model")
def task_usage(model: Model, params: Params, windows: jax.Array) -> jax.Array:
  """Returns [V, E] float32: how much each task's text uses each expert.

  The mean router probabilities over a task's tokens, less padding, and over
  layers. Probabilities and not counts: they are smooth, and tell experts apart
  that are never among a task's first K.

  Args:
    model: a model with experts.
    params: its parameters.
    windows: [V, n, S + 1] integer tokens, windows of every task.
  """

  def of_task(windows: jax.Array) -> jax.Array:
    read = data.read_windows(windows)
    # The logits are not used, hence not in the compiled program.
    _, seen = model.apply(
      params,
      read.inputs,
      attention_mask=read.is_text,
      observe=Partial(_probabilities),
    )
    by_token = jnp.mean(seen, axis=0)  # over the layers
    if read.is_text is None:
      return jnp.mean(by_token, axis=0)
    is_text = read.is_text.reshape(-1).astype(by_token.dtype)
    return is_text @ by_token / jnp.maximum(jnp.sum(is_text), 1.0)

  return jax.lax.map(of_task, windows)


def _probabilities(layer: MoeInput, output: MoeOutput) -> jax.Array:
  del output
  return layer.routing.probabilities


def observe_usage(params: Params, moe_layers: Sequence[int]) -> Partial:
  """An observer of how much each layer's router would use each expert.

  For the model of experts and for what merging makes of it, whose hidden states
  the routers have not been trained on: an estimate of the usage that needs no
  routed forward. What it sees is [L, E] float32, the mean softmax of the logits
  over a batch's tokens, padding left out.

  Args:
    params: of the model with experts.
    moe_layers: the layers with experts, of the model's config.

  Raises:
    ValueError: if there are no routers.
  """
  layers = [params["params"][f"layer_{i}"] for i in moe_layers]
  if any("router" not in layer["experts"] for layer in layers):
    raise ValueError("usage is what routers tell, got params without routers")
  routers = [
    {
      name: leaf
      for name, leaf in layer["experts"]["router"].items()
      if name in ("kernel", "bias")
    }
    for layer in layers
  ]
  stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *routers)
  return Partial(_mean_probabilities, stacked)


def _mean_probabilities(
  router: Params, layer: MoeInput, output: MoeOutput
) -> jax.Array:
  del output
  logits = layer.hidden.astype(jnp.float32) @ router["kernel"]
  if "bias" in router:
    logits = logits + router["bias"][None]
  is_token = layer.token_mask[:, None].astype(jnp.float32)
  total = jnp.sum(is_token * jax.nn.softmax(logits), axis=0)
  return total / jnp.maximum(jnp.sum(is_token), 1.0)
