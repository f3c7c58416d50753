import jax
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
  np.testing.assert_array_equal(found.num_pairs, [2, 2, 0])
  np.testing.assert_allclose(found.gate_mass, [1.25, 1.25, 0.0])
  np.testing.assert_allclose(found.probability, PROBABILITIES.sum(0), rtol=1e-6)
  assert int(found.num_tokens) == 4
  np.testing.assert_allclose(moe.usage(ROUTING), [0.25, 0.25, 0.0])
  assert float(moe.dropped_share(ROUTING)) == 0.5


def test_parts_add_up_and_padding_is_left_out():
  masks = np.array([[1, 0, 1, 0], [0, 1, 0, 0]], bool)
  parts = [moe.expert_statistics(ROUTING, jnp.array(mask)) for mask in masks]
  total = jax.tree.map(lambda one, other: one + other, *parts)
  # The first three tokens.
  np.testing.assert_array_equal(total.num_pairs, [1, 2, 0])
  np.testing.assert_allclose(total.gate_mass, [0.75, 1.25, 0.0])
  np.testing.assert_allclose(
    total.probability, PROBABILITIES[:3].sum(0), rtol=1e-6
  )
  assert int(total.num_tokens) == 3


def test_by_token():
  found = moe.token_statistics(ROUTING)
  np.testing.assert_array_equal(found.num_active, [2, 1, 0, 1])
  np.testing.assert_allclose(found.gate_mass, [1.0, 1.0, 0.0, 0.5])
  entropy = -(0.7 * np.log(0.7) + 0.2 * np.log(0.2) + 0.1 * np.log(0.1))
  np.testing.assert_allclose(
    found.entropy, [entropy, 0.0, np.log(3), np.log(2)], rtol=1e-6
  )
