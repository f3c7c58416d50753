"""The rewards of a merged model on windows of text.

Letters: V tasks, E experts, B windows, n windows of a task, S tokens of
context.
"""

import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from tanbr_jax import data, models


def window_rewards(
  model: models.Model,
  params: models.Params,
  windows: jax.Array,
  *,
  merge_weights: jax.Array | None,
  reward: Partial,
) -> jax.Array:
  """The reward of each window.

  Args:
    model: a model with experts, or a dense one.
    params: its parameters.
    windows: [B, S + 1] integer tokens; the last S are predicted.
    merge_weights: [E] merges the experts and serves the dense model; None
      serves the model as it is.
    reward: see `environments.rewards`.

  Returns:
    [B] float32.
  """
  if merge_weights is not None:
    model, params = models.merge(model, params, merge_weights)

  def part(windows: jax.Array) -> jax.Array:
    read = data.read_windows(windows)
    logits = model.apply(params, input_ids=read.inputs)
    return reward(logits, read).astype(jnp.float32)

  return models.over_windows(part, windows, vocab_size=model.config.vocab_size)


def task_rewards(
  model: models.Model,
  params: models.Params,
  windows: jax.Array,
  merge_weights: jax.Array,
  *,
  reward: Partial,
) -> jax.Array:
  """Mean rewards by task, [V], of windows [V, n, S + 1] under weights [E]."""
  dense, dense_params = models.merge(model, params, merge_weights)

  def of_task(windows: jax.Array) -> jax.Array:
    rewards = window_rewards(
      dense, dense_params, windows, merge_weights=None, reward=reward
    )
    return jnp.mean(rewards)

  # Task by task: the activations of all windows at once outgrow the cache.
  return jax.lax.map(of_task, windows)
