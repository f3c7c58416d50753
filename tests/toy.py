"""A tiny environment with a known optimum and a bandit that learns it.

Task v has reward h_v(x) = x_v, hence psi . h(x) is largest, max(psi), at the
vertex of the largest entry of psi.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from tanbr_jax.bandits.base import Bandit, Context, Decision, Feedback
from tanbr_jax.environments.base import Environment, Outcome
from tanbr_jax.online.trace import Trace

SIZE = 3  # E = V
NOISE = 0.1


class ToyState(NamedTuple):
  """Holds a typed key and a bfloat16, which npz does not know by itself."""

  total: jax.Array
  count: jax.Array
  key: jax.Array
  half: jax.Array


def _env_init(key):
  return jax.nn.softmax(jax.random.normal(key, (SIZE,)))


def _env_step(noise, key, mix, weights):
  noise_key, count_key, mix_key = jax.random.split(key, 3)
  draws = jax.random.normal(noise_key, (SIZE,))
  reward = weights + noise * draws
  count = jax.random.randint(count_key, (SIZE,), 0, 3)
  best = jnp.argmax(mix)
  outcome = Outcome(
    task_mix=mix,
    expected_reward=mix @ weights,
    realised_reward=mix @ reward,
    optimal_reward=jnp.max(mix),
    optimal_weights=jax.nn.one_hot(best, SIZE, dtype=jnp.float32),
  )
  next_mix = 0.9 * mix + 0.1 * _env_init(mix_key)
  return Feedback(reward, count), outcome, next_mix


def environment(noise=NOISE):
  return Environment(
    Partial(_env_init),
    Partial(Context),
    Partial(_env_step, jnp.float32(noise)),
  )


def _init(key):
  return ToyState(
    total=jnp.zeros(SIZE),
    count=jnp.zeros(SIZE, jnp.int32),
    key=key,
    half=jnp.ones((), jnp.bfloat16),
  )


def _select(temperature, key, state, context):
  scores = context.task_mix * (1.0 + state.total / (1.0 + jnp.sum(state.total)))
  jitter = 0.01 * jax.random.normal(key, (SIZE,))
  weights = jax.nn.softmax((scores + jitter) / temperature)
  return Decision(
    weights,
    {"seen": jnp.sum(state.count), "scores": scores, "scale": scores[0]},
  )


def _update(key, state, context, decision, feedback):
  del context, decision
  seen = (feedback.task_count > 0).astype(jnp.float32)
  step = jax.random.uniform(key, (SIZE,)) * seen
  return ToyState(
    total=state.total + step * jax.nn.sigmoid(feedback.task_reward),
    count=state.count + feedback.task_count,
    key=jax.random.fold_in(state.key, 1),
    half=state.half * jnp.bfloat16(0.5),
  )


def bandit(temperature=0.1):
  return Bandit(
    Partial(_init),
    Partial(_select, jnp.float32(temperature)),
    Partial(_update),
  )


def make_trace(expected, realised, optimal):
  """A trace with [S, T] rewards, one expert and one task."""
  expected = np.asarray(expected, np.float32)
  shape = expected.shape
  return Trace(
    seeds=np.arange(shape[0]),
    expected_reward=expected,
    realised_reward=np.asarray(realised, np.float32),
    optimal_reward=np.asarray(optimal, np.float32),
    merge_weights=np.ones((*shape, 1), np.float32),
    task_mix=np.ones((*shape, 1), np.float32),
    shown_mix=np.ones((*shape, 1), np.float32),
    task_count=np.ones((*shape, 1), np.int32),
    nonfinite_rewards=np.zeros(shape, np.int32),
    nonfinite_signals=np.zeros(shape, np.int32),
    seconds=np.ones(1),
    chunk_rounds=np.asarray([shape[1]]),
    aux={},
  )
