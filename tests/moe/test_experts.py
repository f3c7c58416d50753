import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tanbr_jax import moe


@pytest.fixture(scope="module")
def experts():
  return moe.init_experts(jax.random.key(0), 4, model_dim=6, expert_dim=8)


def test_one_hot_weights_give_that_expert(experts):
  one = moe.merge(experts, jnp.array([0.0, 0.0, 1.0, 0.0]))
  np.testing.assert_array_equal(one.w_in, experts.w_in[2])
  np.testing.assert_array_equal(one.w_out, experts.w_out[2])


def test_merging_leaves_one_expert_of_bytes(experts):
  merged = moe.merge(experts, jnp.full(4, 0.25))
  count = sum(leaf.nbytes for leaf in jax.tree.leaves(merged))
  assert 4 * count == sum(leaf.nbytes for leaf in jax.tree.leaves(experts))


def test_outputs_keep_the_variance_of_inputs():
  experts = moe.init_experts(jax.random.key(1), 1, model_dim=64, expert_dim=256)
  block = moe.merge(experts, jnp.ones(1))
  x = jax.random.normal(jax.random.key(2), (512, 64))
  # One draw of 33k weights: the variance is within a tenth of 1 or so.
  assert np.var(moe.apply(block, x)) == pytest.approx(1.0, abs=0.25)


def test_refuses_other_numbers_of_weights(experts):
  with pytest.raises(ValueError, match=r"\(3,\), num_experts=4"):
    moe.merge(experts, jnp.ones(3))
