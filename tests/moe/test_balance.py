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

  @jax.jit
  def measure(logits, is_token):
    routing = moe.top_k(logits, 1)
    skipped = moe.keep_pairs(routing, is_token[:, None])
    losses = (
      moe.load_balance_loss(routing, is_token),
      moe.load_balance_loss(skipped),
    )
    bias = moe.update_correction_bias(
      jnp.zeros(4), routing, token_mask=is_token, rate=0.5
    )
    dropped = moe.dropped_share(skipped), moe.dropped_share(skipped, is_token)
    return losses, moe.usage(routing, is_token), bias, dropped

  losses, usage, bias, dropped = measure(logits, is_token)
  # Balanced: shares and mean probabilities of a quarter.
  assert np.array(losses) == pytest.approx(1.0)
  expected = np.log(np.exp(10) + 3) ** 2
  found, grad = jax.jit(jax.value_and_grad(moe.z_loss))(logits, is_token)
  assert float(found) == pytest.approx(expected, rel=1e-5)
  assert not grad[4:].any()
  np.testing.assert_allclose(usage, 0.25)
  np.testing.assert_array_equal(bias, np.zeros(4))
  assert tuple(map(float, dropped)) == (0.5, 0.0)


def test_no_token_has_no_loss_and_moves_no_bias():
  def losses(logits):
    routing = moe.top_k(logits, 2)
    return moe.load_balance_loss(routing) + moe.z_loss(logits)

  @jax.jit
  def measure(logits, bias):
    routing = moe.top_k(logits, 2)
    moved = moe.update_correction_bias(bias, routing)
    return moved, moe.usage(routing), moe.dropped_share(routing)

  none = np.zeros((0, 4), np.float32)
  value, grad = jax.jit(jax.value_and_grad(losses))(none)
  assert float(value) == 0.0 and grad.shape == (0, 4)
  bias = np.array([0.5, 0.0, -0.5, 1.0], np.float32)
  moved, usage, dropped = measure(none, bias)
  np.testing.assert_array_equal(moved, bias)
  np.testing.assert_array_equal(usage, np.zeros(4))
  assert float(dropped) == 0.0


def test_refuses_masks_rates_and_biases_that_do_not_fit():
  routing = jax.jit(lambda x: moe.top_k(x, 2))(np.zeros((3, 4), np.float32))
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
  @jax.jit
  def moved(logits):
    routing = moe.top_k(logits, 1)
    return moe.update_correction_bias(jnp.zeros(3), routing, rate=0.5)

  bias = moved(LOGITS)  # of experts 2 and 0
  np.testing.assert_allclose(bias, [-0.5, 0.5, -0.5])

  # By its loop alone the bias evens out a router that prefers one expert.
  logits = np.random.default_rng(0).normal(size=(64, 4)).astype(np.float32)
  logits[:, 0] += 2

  def step(bias, _):
    routing = moe.top_k(logits, 1, scores="sigmoid", correction_bias=bias)
    bias = moe.update_correction_bias(bias, routing, rate=0.01)
    return bias, moe.usage(routing)

  _, usage = jax.jit(lambda b: jax.lax.scan(step, b, length=200))(jnp.zeros(4))
  assert usage[0, 0] > 0.5
  # An even share is 16 tokens of 64; ties of the discrete load leave a few.
  assert np.abs(usage[-20:].mean(0) - 0.25).max() < 0.06
