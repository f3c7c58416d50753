import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tanbr_jax import moe

LOGITS = np.log([[0.1, 0.2, 0.7], [0.5, 0.3, 0.2]]).astype(np.float32)


def test_top_k_by_hand():
  routing = moe.top_k(jnp.array(LOGITS), 2)
  np.testing.assert_array_equal(routing.expert_ids, [[2, 1], [0, 1]])
  # .7 and .2 of .9; .5 and .3 of .8.
  np.testing.assert_allclose(
    routing.gates, [[7 / 9, 2 / 9], [5 / 8, 3 / 8]], rtol=1e-5
  )
  plain = moe.top_k(jnp.array(LOGITS), 2, renormalise=False)
  np.testing.assert_allclose(plain.gates, [[0.7, 0.2], [0.5, 0.3]], rtol=1e-5)


def test_usage_and_load_balance_by_hand():
  routing = moe.top_k(jnp.array(LOGITS), 2)
  np.testing.assert_allclose(moe.usage(routing), [0.25, 0.5, 0.25])
  # Mean probabilities .3, .25, .45: 3 * (.075 + .125 + .1125).
  assert float(moe.load_balance_loss(routing)) == pytest.approx(0.9375)


def test_load_balance_of_uniform_logits_is_one():
  assert float(
    moe.load_balance_loss(moe.top_k(jnp.zeros((6, 4)), 4))
  ) == pytest.approx(1.0)


def test_task_usage_is_the_mean_of_each_task():
  routing = moe.top_k(jnp.array(LOGITS), 1)
  usage = moe.task_usage(routing, jnp.array([2, 2]), num_tasks=3)
  np.testing.assert_allclose(usage[2], [0.3, 0.25, 0.45], rtol=1e-5)
  np.testing.assert_allclose(usage[:2], 1 / 3, rtol=1e-6)


def test_z_loss_is_the_squared_log_partition():
  assert float(moe.z_loss(jnp.full((2, 4), 1.0))) == pytest.approx(
    (1 + np.log(4)) ** 2, rel=1e-6
  )


def test_router_gradient_reaches_the_logits():
  grad = jax.grad(lambda x: moe.top_k(x, 2).gates[0, 0])(jnp.array(LOGITS))
  # d/dz of p2/(p2 + p1) = sigmoid(z2 - z1): 7/9 * 2/9 for both, opposite.
  np.testing.assert_allclose(
    grad[0], [0.0, -14 / 81, 14 / 81], rtol=1e-5, atol=1e-7
  )


@pytest.mark.parametrize("num_selected", [0, 4])
def test_refuses_impossible_k(num_selected):
  with pytest.raises(ValueError, match=f"={num_selected}, num_experts=3"):
    moe.top_k(jnp.array(LOGITS), num_selected)
