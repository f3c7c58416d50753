"""Controls play what they say, and refuse what is off the simplex."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tanbr_jax import bandits
from tanbr_jax.bandits import Context

MIX = np.array([0.5, 0.3, 0.2], np.float32)


def played(bandit, seed=0):
  key = jax.random.key(seed)
  decision = bandit.select(key, bandit.init(key), Context(jnp.asarray(MIX)))
  return np.asarray(decision.merge_weights)


def test_what_is_played():
  sizes = {"num_experts": 2, "num_tasks": 3}
  table = np.array([[1, 0], [0.5, 0.5], [0, 1]])
  weights = played(bandits.uniform(**sizes))
  np.testing.assert_array_equal(weights, [0.5, 0.5])
  weights = played(bandits.fixed(weights=[0.25, 0.75], **sizes))
  np.testing.assert_array_equal(weights, [0.25, 0.75])
  # .5 [1, 0] + .3 [.5, .5] + .2 [0, 1]
  weights = played(bandits.follow_task_mix(table=table, **sizes))
  np.testing.assert_allclose(weights, [0.65, 0.35], rtol=1e-6)
  weights = played(bandits.oracle(policy=lambda mix: mix[:2], **sizes))
  np.testing.assert_array_equal(weights, MIX[:2])


def test_random_is_uniform_on_the_simplex():
  bandit = bandits.random(num_experts=3, num_tasks=3)
  draws = np.array([played(bandit, seed) for seed in range(300)])
  # Dirichlet(1, 1, 1): mean 1/3, variance 1/18; 5 standard errors.
  np.testing.assert_allclose(draws.mean(0), 1 / 3, atol=5 * (1 / 5400) ** 0.5)
  np.testing.assert_allclose(draws.var(0), 1 / 18, rtol=0.3)


@pytest.mark.parametrize(
  "name, options, words",
  [
    ("fixed", {"weights": [0.5, 0.6]}, "sum to 1"),
    ("fixed", {"weights": [0.2, 0.3, 0.5]}, "num_experts=2"),
    ("fixed", {"weights": [-0.5, 1.5]}, "-0.5"),
    ("fixed", {"weights": [np.nan, 1.0]}, "nan"),
    ("follow_task_mix", {"table": np.eye(2)}, "num_tasks=3"),
  ],
)
def test_bad_input(name, options, words):
  with pytest.raises(ValueError, match=words):
    bandits.REGISTRY[name](num_experts=2, num_tasks=3, **options)
