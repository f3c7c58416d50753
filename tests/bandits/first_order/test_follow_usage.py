"""The moving average of the router's usage, and what is not a usage."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tanbr_jax import bandits
from tanbr_jax.bandits import Context, Feedback

CONTEXT = Context(jnp.ones(1, jnp.float32))


def after(bandit, usages):
  key = jax.random.key(0)
  state = bandit.init(key)
  for usage in usages:
    decision = bandit.select(key, state, CONTEXT)
    told = Feedback(
      jnp.zeros(1, jnp.float32),
      jnp.zeros(1, jnp.int32),
      usage=jnp.asarray(usage, jnp.float32),
    )
    state = bandit.update(key, state, CONTEXT, decision, told)
  return np.asarray(bandit.select(key, state, CONTEXT).merge_weights), state


def test_average():
  bandit = bandits.follow_usage(num_experts=2, num_tasks=1, decay=0.25)
  np.testing.assert_array_equal(after(bandit, [])[0], [0.5, 0.5])
  # The first counts whole, then .25 [1, 0] + .75 [.2, .8].
  weights, _ = after(bandit, [[1, 0], [0.2, 0.8]])
  np.testing.assert_allclose(weights, [0.4, 0.6], rtol=1e-6)


@pytest.mark.parametrize(
  "usage", [[0, 0], [np.nan, 1], [np.inf, 0], [-1, 2], [-np.inf, 1]]
)
def test_what_is_no_usage_changes_nothing(usage):
  bandit = bandits.follow_usage(num_experts=2, num_tasks=1)
  with_it, state = after(bandit, [[0.3, 0.7], usage])
  without, other = after(bandit, [[0.3, 0.7]])
  np.testing.assert_array_equal(with_it, without)
  assert state.num_slots == other.num_slots == 1


def test_huge_usage_is_normalised():
  bandit = bandits.follow_usage(num_experts=2, num_tasks=1)
  weights, _ = after(bandit, [[3e38, 3e38]])
  np.testing.assert_allclose(weights, [0.5, 0.5], rtol=1e-6)


@pytest.mark.parametrize("decay", [1.0, -0.1, float("nan")])
def test_bad_decay_is_refused(decay):
  with pytest.raises(ValueError, match=f"decay={decay}"):
    bandits.follow_usage(num_experts=2, num_tasks=1, decay=decay)
