import jax.numpy as jnp
import numpy as np
import pytest

from tanbr_jax import moe

NO = moe.NO_EXPERT
PROBABILITIES = np.full((3, 4), 0.25, np.float32)


def _routing(ids, gates):
  return moe.Routing(
    jnp.array(ids, jnp.int32), jnp.array(gates, jnp.float32), PROBABILITIES
  )


@pytest.fixture
def routing():
  return _routing(
    [[0, 3], [NO, 2], [1, 0]], [[0.6, 0.4], [9.0, 0.5], [0.3, 0.1]]
  )


def test_a_mask_skips_its_pairs_and_keeps_the_other_gates(routing):
  mask = np.array(
    [[True, True, True, False], [True] * 4, [True, False, False, False]]
  )
  masked = moe.apply_mask(routing, jnp.array(mask))
  np.testing.assert_array_equal(masked.expert_ids, [[0, NO], [NO, 2], [NO, 0]])
  np.testing.assert_allclose(masked.gates, [[0.6, 0], [0, 0.5], [0, 0.1]])
  for_all = moe.apply_mask(routing, jnp.array([False, True, True, True]))
  np.testing.assert_array_equal(for_all.expert_ids, [[NO, 3], [NO, 2], [1, NO]])


def test_gates_normalised_over_what_is_left(routing):
  mask = jnp.array([True, True, False, True])
  normalised = moe.normalise_gates(moe.apply_mask(routing, mask))
  # The middle token has no expert left.
  np.testing.assert_allclose(
    normalised.gates, [[0.6, 0.4], [0, 0], [0.75, 0.25]], rtol=1e-6
  )


def test_dense_gates_leave_skipped_pairs_out(routing):
  np.testing.assert_allclose(
    moe.dense_gates(routing),
    [[0.6, 0, 0, 0.4], [0, 0, 0.5, 0], [0.1, 0.3, 0, 0]],
  )
  scaled = moe.scale_gates(routing, 2.0)
  np.testing.assert_allclose(
    moe.dense_gates(scaled), 2 * moe.dense_gates(routing)
  )


def test_check_says_which_pair_is_wrong(routing):
  moe.check_routing(routing, num_tokens=3, num_experts=4)
  ids = routing.expert_ids.at[1, 1].set(4).at[2, 0].set(-2)
  with pytest.raises(ValueError, match=r"in \[0, 4\), got 4 at \[1, 1\] \(2"):
    moe.check_routing(
      routing._replace(expert_ids=ids), num_tokens=3, num_experts=4
    )
  gates = routing.gates.at[2, 1].set(jnp.nan)
  with pytest.raises(ValueError, match=r"finite, got nan at \[2, 1\]"):
    moe.check_routing(
      routing._replace(gates=gates), num_tokens=3, num_experts=4
    )
  # The gate of a skipped pair does not matter.
  gates = routing.gates.at[1, 0].set(jnp.nan)
  moe.check_routing(routing._replace(gates=gates), num_tokens=3, num_experts=4)
  with pytest.raises(ValueError, match=r"N=5 tokens .* int32\(3, 2\)"):
    moe.check_routing(routing, num_tokens=5, num_experts=4)


def test_refuses_masks_of_another_shape_or_type(routing):
  with pytest.raises(ValueError, match=r"bool\(3,\) for \[N, E\] = \(3, 4\)"):
    moe.apply_mask(routing, jnp.ones(3, bool))
  with pytest.raises(ValueError, match=r"mask int32\(4,\)"):
    moe.apply_mask(routing, jnp.ones(4, jnp.int32))
