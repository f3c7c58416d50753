"""Plays of first-order learners on streams of gradients, for their tests."""

import jax
import jax.numpy as jnp
import numpy as np

from tanbr_jax.bandits import Context, Feedback


def feedback(gradient, count=1, num_tasks=1):
  """Feedback of a slot that tells a gradient and no reward."""
  zeros = jnp.zeros(num_tasks, jnp.float32)
  return Feedback(
    zeros,
    jnp.zeros(num_tasks, jnp.int32),
    gradient=gradient,
    gradient_count=jnp.int32(count),
  )


def play_linear(bandit, gradients, mixes=None):
  """Weights [T, E] played against gradients [T, E] that do not depend on them.

  Args:
    bandit: of one task without mixes.
    gradients: [T, E].
    mixes: [T, V].
  """
  gradients = jnp.asarray(gradients, jnp.float32)
  if mixes is None:
    mixes = np.ones((len(gradients), 1))
  mixes = jnp.asarray(mixes, jnp.float32)
  return np.asarray(_play_linear(bandit, gradients, mixes))


@jax.jit
def _play_linear(bandit, gradients, mixes):
  key = jax.random.key(0)

  def step(state, slot):
    gradient, mix = slot
    decision = bandit.select(key, state, Context(mix))
    told = feedback(gradient, num_tasks=mix.shape[0])
    state = bandit.update(key, state, Context(mix), decision, told)
    return state, decision.merge_weights

  return jax.lax.scan(step, bandit.init(key), (gradients, mixes))[1]


@jax.jit
def climb_quadratic(bandit, centres, mixes):
  """Weights [T, E] played where the reward is -sum_v psi_v |x - c_v|^2 / 2.

  Args:
    bandit: of V tasks.
    centres: [V, E].
    mixes: [T, V].
  """
  key = jax.random.key(0)

  def step(state, mix):
    decision = bandit.select(key, state, Context(mix))
    gradient = mix @ (centres - decision.merge_weights[None, :])
    told = feedback(gradient, num_tasks=mix.shape[0])
    state = bandit.update(key, state, Context(mix), decision, told)
    return state, decision.merge_weights

  return jax.lax.scan(step, bandit.init(key), mixes)[1]


def centred(gradients):
  return gradients - gradients.mean(axis=-1, keepdims=True)
