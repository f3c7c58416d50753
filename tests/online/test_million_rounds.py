"""Nothing drifts in float32: as many rounds as a year of half-minute slots."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tanbr_jax import bandits
from tanbr_jax.environments import mixes, synthetic
from tanbr_jax.online import rounds

E, V, T, C = 3, 2, 1_000_000, 50_000


@pytest.mark.slow
def test_regret_and_the_models_error_only_fall():
  bandit = bandits.multitask_ts(num_experts=E, num_tasks=V, num_fourier=8)
  environment = synthetic.synthetic(
    "quadratic", num_experts=E, num_tasks=V, task_mix=mixes.drift(num_tasks=V)
  )
  seeds = jnp.asarray([0], jnp.int32)
  play = jax.jit(functools.partial(rounds.play, chunk_size=C, loop="map"))
  carry = rounds.init(bandit, environment, seeds)
  regrets, errors = [], []
  for first in range(0, T, C):
    carry, record = play(bandit, environment, carry, seeds, jnp.int32(first))
    gap = record["optimal_reward"] - record["expected_reward"]
    error = record["aux"]["predicted_reward"] - record["expected_reward"]
    regrets.append(np.asarray(gap, np.float64).mean())
    errors.append(np.abs(np.asarray(error, np.float64)).mean())
  assert all(
    np.isfinite(leaf).all()
    for leaf in jax.tree.leaves(carry.bandit)
    if jnp.issubdtype(leaf.dtype, jnp.floating)
  )
  # A tenth of the first chunk's in the end, and nowhere above it.
  assert max(regrets[1:]) < regrets[0] and max(errors[1:]) < errors[0]
  assert regrets[-1] < 0.1 * regrets[0]
