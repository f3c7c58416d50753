import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tanbr_jax import moe

LOGITS = np.log([[0.1, 0.2, 0.7], [0.5, 0.3, 0.2]]).astype(np.float32)


def test_load_balance_and_its_slope_by_hand():
  def loss(probabilities):
    routing = moe.top_k(jnp.array(LOGITS), 2)
    return moe.load_balance_loss(routing._replace(probabilities=probabilities))

  value, grad = jax.jit(jax.value_and_grad(loss))(np.exp(LOGITS))
  # Shares .25, .5, .25; mean probabilities .3, .25, .45:
  # 3 * (.075 + .125 + .1125). The slope is 3 * share / 2 tokens.
  assert float(value) == pytest.approx(0.9375)
  np.testing.assert_allclose(grad, [[0.375, 0.75, 0.375]] * 2, rtol=1e-6)


def test_load_balance_of_uniform_logits_is_one():
  loss = jax.jit(lambda x: moe.load_balance_loss(moe.top_k(x, 4)))
  assert float(loss(np.zeros((6, 4), np.float32))) == pytest.approx(1.0)


def test_z_loss_is_the_squared_log_partition():
  assert float(moe.z_loss(jnp.full((2, 4), 1.0))) == pytest.approx(
    (1 + np.log(4)) ** 2, rel=1e-6
  )


def test_padding_is_left_out():
  """Four tokens, one for each expert, then four of padding for the first."""
  logits = np.concatenate([10 * np.eye(4), 30 * np.eye(4)[[0] * 4]])
  logits, is_token = jnp.asarray(logits, jnp.float32), jnp.arange(8) < 4
  routing = moe.top_k(logits, 1)
  # Balanced: shares and mean probabilities of a quarter.
  assert float(moe.load_balance_loss(routing, is_token)) == pytest.approx(1.0)
  skipped = moe.keep_pairs(routing, is_token[:, None])
  assert float(moe.load_balance_loss(skipped)) == pytest.approx(1.0)
  expected = np.log(np.exp(10) + 3) ** 2
  found, grad = jax.jit(jax.value_and_grad(moe.z_loss))(logits, is_token)
  assert float(found) == pytest.approx(expected, rel=1e-5)
  assert not grad[4:].any()
  np.testing.assert_allclose(moe.usage(routing, is_token), 0.25)
  bias = moe.update_correction_bias(
    jnp.zeros(4), routing, token_mask=is_token, rate=0.5
  )
  np.testing.assert_array_equal(bias, np.zeros(4))
  assert float(moe.dropped_share(skipped)) == 0.5
  assert float(moe.dropped_share(skipped, is_token)) == 0.0


def test_no_token_has_no_loss_and_moves_no_bias():
  def losses(logits):
    routing = moe.top_k(logits, 2)
    return moe.load_balance_loss(routing) + moe.z_loss(logits)

  value, grad = jax.value_and_grad(losses)(jnp.zeros((0, 4)))
  assert float(value) == 0.0 and grad.shape == (0, 4)
  routing = moe.top_k(jnp.zeros((0, 4)), 2)
  bias = jnp.array([0.5, 0.0, -0.5, 1.0])
  np.testing.assert_array_equal(moe.update_correction_bias(bias, routing), bias)
  np.testing.assert_array_equal(moe.usage(routing), np.zeros(4))
  assert float(moe.dropped_share(routing)) == 0.0


def test_refuses_masks_rates_and_biases_that_do_not_fit():
  routing = moe.top_k(jnp.zeros((3, 4)), 2)
  for mask in (jnp.ones(2, bool), jnp.ones(3)):
    with pytest.raises(
      ValueError, match=rf"bool \[N\] = \[3\], got {mask.dtype}"
    ):
      moe.load_balance_loss(routing, mask)
  with pytest.raises(ValueError, match="token_mask must be an array, got list"):
    moe.z_loss(jnp.zeros((2, 4)), [True, False])
  with pytest.raises(ValueError, match="rate=nan"):
    moe.update_correction_bias(jnp.zeros(4), routing, rate=float("nan"))
  with pytest.raises(ValueError, match=r"= \[4\], got \(3,\)"):
    moe.update_correction_bias(jnp.zeros(3), routing)


def test_correction_bias_moves_towards_an_even_load():
  routing = moe.top_k(jnp.array(LOGITS), 1)  # experts 2 and 0
  bias = moe.update_correction_bias(jnp.zeros(3), routing, rate=0.5)
  np.testing.assert_allclose(bias, [-0.5, 0.5, -0.5])

  # By its loop alone the bias evens out a router that prefers one expert.
  logits = jax.random.normal(jax.random.key(0), (64, 4))
  logits = logits + jnp.array([[2.0, 0.0, 0.0, 0.0]])

  def step(bias, _):
    routing = moe.top_k(logits, 1, scores="sigmoid", correction_bias=bias)
    bias = moe.update_correction_bias(bias, routing, rate=0.01)
    return bias, moe.usage(routing)

  _, usage = jax.jit(lambda b: jax.lax.scan(step, b, length=200))(jnp.zeros(4))
  assert usage[0, 0] > 0.5
  # An even share is 16 tokens of 64; ties of the discrete load leave a few.
  assert np.abs(usage[-20:].mean(0) - 0.25).max() < 0.06
