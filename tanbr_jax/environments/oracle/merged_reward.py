"""The rewards of a merged model on windows of text.

Letters: V tasks, E experts, B windows, n windows of a task, S tokens of
context.
"""

import jax
import jax.numpy as jnp

from tanbr_jax import models

REWARDS = ("accuracy", "log_likelihood")


def check_reward(reward: str) -> None:
  """Raises a ValueError if the reward is none of `REWARDS`."""
  if reward not in REWARDS:
    raise ValueError(f"reward must be one of {list(REWARDS)}, got {reward!r}")


def window_rewards(
  model: models.Model,
  params: models.Params,
  windows: jax.Array,
  *,
  merge_weights: jax.Array | None,
  reward: str,
) -> jax.Array:
  """The mean reward over the predicted tokens of each window.

  Args:
    model: a model with experts, or a dense one.
    params: its parameters.
    windows: [B, S + 1] integer tokens; the last S are predicted.
    merge_weights: [E] merges the experts and serves the dense model; None
      serves the model as it is.
    reward: "accuracy", the share of tokens whose likeliest prediction is right,
      or "log_likelihood", nats per token, differentiable in the weights.

  Returns:
    [B] float32.
  """
  if merge_weights is not None:
    model, params = models.merge(model, params, merge_weights)
  return reward_of_score(models.score(model, params, windows), reward)


def reward_of_score(score: models.Score, reward: str) -> jax.Array:
  """The rewards [B] of scored windows; `reward` as for `window_rewards`."""
  return score.accuracy if reward == "accuracy" else -score.loss


def task_rewards(
  model: models.Model,
  params: models.Params,
  windows: jax.Array,
  merge_weights: jax.Array,
  *,
  reward: str,
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
