"""How well a model predicts the next byte, and where its router sends text.

Letters: B windows, S bytes of context, L layers, E experts.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from tanbr_jax import moe
from tanbr_jax.models.byte_lm import ByteLM
from tanbr_jax.models.merging import Params


class Score(NamedTuple):
  """Means over a window's bytes.

  Attributes:
    loss: [B] float32, cross-entropy of the next byte, nats.
    accuracy: [B] float32, share of next bytes that are the likeliest one.
  """

  loss: jax.Array
  accuracy: jax.Array


def score(model: ByteLM, params: Params, windows: jax.Array) -> Score:
  """Scores every window.

  Args:
    model: routed or dense.
    params: its parameters.
    windows: [B, S + 1] uint8; the last S bytes are predicted.

  Returns:
    A `Score` of [B] values.
  """
  windows = windows.astype(jnp.int32)
  logits = model.apply(params, input_ids=windows[:, :-1])
  return score_logits(logits, windows[:, 1:])


def score_logits(logits: jax.Array, targets: jax.Array) -> Score:
  """Scores logits [B, S, 256] against the next bytes [B, S] int32."""
  chosen = jnp.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]
  loss = jax.nn.logsumexp(logits, axis=-1) - chosen
  is_right = jnp.argmax(logits, axis=-1).astype(targets.dtype) == targets
  return Score(
    loss=jnp.mean(loss, axis=-1),
    accuracy=jnp.mean(is_right.astype(jnp.float32), axis=-1),
  )


def route(
  model: ByteLM, params: Params, input_ids: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """Applies the routed model and keeps what its routers said.

  Args:
    model: a model with experts.
    params: its parameters.
    input_ids: [B, S] int32.

  Returns:
    Logits [B, S, 256] and the routers' logits [L, B * S, E] float32.
  """
  logits, state = model.apply(
    params, input_ids=input_ids, mutable=["intermediates"]
  )
  layers = state["intermediates"]
  router_logits = [
    layers[f"layer_{layer}"]["experts"]["router_logits"][0]
    for layer in range(model.config.num_layers)
  ]
  return logits, jnp.stack(router_logits)


def task_usage(
  model: ByteLM,
  params: Params,
  windows: jax.Array,
) -> jax.Array:
  """Returns [V, E] float32: how much each task's text uses each expert.

  Args:
    model: a model with experts.
    params: its parameters.
    windows: [V, n, S + 1] uint8, windows of every task.
  """
  num_tasks, count, length = windows.shape
  inputs = windows.reshape(-1, length)[:, :-1].astype(jnp.int32)
  _, router_logits = route(model, params, inputs)
  routing = moe.top_k(
    router_logits.reshape(-1, router_logits.shape[-1]),
    model.config.num_selected,
  )
  task_ids = jnp.repeat(jnp.arange(num_tasks), count * (length - 1))
  task_ids = jnp.tile(task_ids, model.config.num_layers)
  return moe.task_usage(routing, task_ids, num_tasks=num_tasks)
