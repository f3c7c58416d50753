"""Scores of a model on text, and where its routers send it.

Letters: B windows, S tokens of context, V tasks (of logits: the vocabulary), E
experts.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from tanbr_jax.models.base import Model, MoeInput, MoeOutput, Params


class Score(NamedTuple):
  """Means over a window's tokens.

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
    windows: [B, S + 1] integer tokens; the last S are predicted.

  Returns:
    A `Score` of [B] values.
  """
  windows = windows.astype(jnp.int32)
  logits = model.apply(params, input_ids=windows[:, :-1])
  return score_logits(logits, windows[:, 1:])


def score_logits(logits: jax.Array, targets: jax.Array) -> Score:
  """Scores logits [B, S, V] against the next tokens [B, S] int32."""
  chosen = jnp.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]
  loss = jax.nn.logsumexp(logits, axis=-1) - chosen
  is_right = jnp.argmax(logits, axis=-1).astype(targets.dtype) == targets
  return Score(
    loss=jnp.mean(loss, axis=-1),
    accuracy=jnp.mean(is_right.astype(jnp.float32), axis=-1),
  )


def task_usage(model: Model, params: Params, windows: jax.Array) -> jax.Array:
  """Returns [V, E] float32: how much each task's text uses each expert.

  The mean router probabilities over a task's tokens and over layers.
  Probabilities and not counts: they are smooth, and tell experts apart that
  are never among a task's first K.

  Args:
    model: a model with experts.
    params: its parameters.
    windows: [V, n, S + 1] integer tokens, windows of every task.
  """
  num_tasks, _, length = windows.shape
  inputs = windows.reshape(-1, length)[:, :-1].astype(jnp.int32)
  _, seen = model.apply(params, inputs, observe=Partial(_probabilities))
  by_task = seen.reshape(seen.shape[0], num_tasks, -1, seen.shape[-1])
  return jnp.mean(by_task, axis=(0, 2))


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
