import jax.numpy as jnp
import numpy as np

from tanbr_jax import moe

NO = moe.NO_EXPERT
PROBABILITIES = np.array(
  [[0.7, 0.2, 0.1], [0.0, 1.0, 0.0], [1 / 3] * 3, [0.5, 0.5, 0.0]], np.float32
)
ROUTING = moe.Routing(
  jnp.array([[0, 1], [1, NO], [NO, NO], [7, 0]], jnp.int32),
  jnp.array([[0.75, 0.25], [1.0, 9.0], [9.0, 9.0], [9.0, 0.5]]),
  jnp.array(PROBABILITIES),
)


def test_by_expert():
  found = moe.expert_statistics(ROUTING)
  # Pairs 2, 2, 0 of 8; gates 1.25, 1.25, 0 over 4 tokens.
  np.testing.assert_allclose(found.usage, [0.25, 0.25, 0.0])
  np.testing.assert_allclose(found.gate_mass, [0.3125, 0.3125, 0.0])
  np.testing.assert_allclose(
    found.probability, PROBABILITIES.mean(0), rtol=1e-6
  )
  assert float(moe.dropped_share(ROUTING)) == 0.5


def test_by_token():
  found = moe.token_statistics(ROUTING)
  np.testing.assert_array_equal(found.num_active, [2, 1, 0, 1])
  np.testing.assert_allclose(found.gate_mass, [1.0, 1.0, 0.0, 0.5])
  entropy = -(0.7 * np.log(0.7) + 0.2 * np.log(0.2) + 0.1 * np.log(0.1))
  np.testing.assert_allclose(
    found.entropy, [entropy, 0.0, np.log(3), np.log(2)], rtol=1e-6
  )


def test_task_usage_is_the_mean_of_each_task():
  usage = moe.task_usage(ROUTING, jnp.array([2, 2, 0, 2]), num_tasks=4)
  np.testing.assert_allclose(
    usage[2], PROBABILITIES[[0, 1, 3]].mean(0), rtol=1e-6
  )
  without = moe.task_usage(ROUTING, jnp.array([0, -1, 4, 1]), num_tasks=2)
  np.testing.assert_allclose(without, PROBABILITIES[[0, 3]], rtol=1e-6)
  # Tasks 1 and 3 have no tokens, task 0 a uniform one.
  np.testing.assert_allclose(usage[np.array([0, 1, 3])], 1 / 3, rtol=1e-6)
