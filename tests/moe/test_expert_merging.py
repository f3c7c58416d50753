import jax
import jax.numpy as jnp
import moe_cases
import numpy as np
import plain_moe
import pytest

from tanbr_jax import moe


@pytest.fixture(scope="module")
def experts():
  return moe_cases.draw_experts("full")


WEIGHTS = np.array(
  [[0.1, 0.2, 0.3, 0.4], [0.0, 0.0, 1.0, 0.0], [2.0, -1.0, 0.0, 0.5]],
  np.float32,
)


def test_equals_a_loop_for_one_and_for_many(experts):
  many = jax.jit(moe.merge)(experts, WEIGHTS)
  one = jax.jit(moe.merge)(experts, WEIGHTS[0])
  arrays = plain_moe.to_float64(experts)
  for r, weights in enumerate(np.float64(WEIGHTS)):
    expected = plain_moe.average(arrays, weights)
    for name in plain_moe.STACKED:
      # Four float32 products of values of about 1.
      np.testing.assert_allclose(
        getattr(many, name)[r], expected[name], atol=1e-6, err_msg=name
      )
      if r == 0:
        np.testing.assert_allclose(
          getattr(one, name), expected[name], atol=1e-6, err_msg=name
        )
  # Weights are not rescaled, and what is shared is neither merged nor stacked.
  for merged in (one, many):
    jax.tree.map(np.testing.assert_array_equal, merged.shared, experts.shared)
    np.testing.assert_array_equal(merged.shared_gate, experts.shared_gate)
    assert merged.activation == experts.activation


def test_one_hot_weights_give_that_expert(experts):
  one = jax.jit(moe.merge)(experts, WEIGHTS[1])
  for name in plain_moe.STACKED:
    np.testing.assert_array_equal(
      getattr(one, name), getattr(experts, name)[2], err_msg=name
    )


def test_merging_leaves_one_expert_of_bytes():
  experts = moe_cases.draw_experts("plain")
  merged = jax.jit(moe.merge)(experts, np.full(4, 0.25, np.float32))
  count = sum(leaf.nbytes for leaf in jax.tree.leaves(merged))
  assert 4 * count == sum(leaf.nbytes for leaf in jax.tree.leaves(experts))


@jax.jit
def _merge_with_slopes(experts, weights):
  def total(experts, weights):
    x = jnp.ones((2, moe_cases.DIM))
    return jnp.sum(moe.merged(experts, x, weights[0]))

  grads = jax.grad(total, argnums=(0, 1))(experts, weights)
  return moe.merge(experts, weights), moe.merge(experts, weights[0]), grads


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_broken_expert_of_weight_zero_stays_out(experts, value):
  # Expert 1 has weight 0 in the first row only.
  weights = jnp.array([[0.5, 0.0, 0.2, 0.3], [0.1, 0.2, 0.3, 0.4]])
  broken = moe_cases.set_expert(experts, 1, value)

  expected, expected_one, (expected_grad, expected_weights) = (
    _merge_with_slopes(experts, weights)
  )
  found, one, (grad, weights_grad) = _merge_with_slopes(broken, weights)
  for name in plain_moe.STACKED:
    np.testing.assert_array_equal(
      getattr(found, name)[0], getattr(expected, name)[0], err_msg=name
    )
    assert not np.isfinite(getattr(found, name)[1]).any()
  jax.tree.map(np.testing.assert_array_equal, one, expected_one)
  jax.tree.map(np.testing.assert_array_equal, grad, expected_grad)
  np.testing.assert_array_equal(grad.w_in[1], 0.0)
  # The slope towards the broken expert is all that knows of it.
  others = np.array([0, 2, 3])
  np.testing.assert_allclose(
    weights_grad[0, others], expected_weights[0, others], rtol=1e-6
  )
  assert not np.isfinite(weights_grad[0, 1])


def test_refuses_other_numbers_of_weights(experts):
  with pytest.raises(ValueError, match=r"an array, got list \[0.5, 0.5\]"):
    moe.merge(experts, [0.5, 0.5])
  with pytest.raises(ValueError, match=r"floating.*int32\(4,\)"):
    moe.merge(experts, jnp.ones(4, jnp.int32))
  for shape in ((3,), (2, 3), (1, 1, 4), (0, 4), ()):
    with pytest.raises(ValueError, match="num_experts=4"):
      moe.merge(experts, jnp.ones(shape))


def test_refuses_what_is_not_stacked(experts):
  one = moe.merge(experts, jnp.full(4, 0.25))
  block = moe.Experts(w_in=one.w_in, w_out=one.w_out, activation="relu2")
  with pytest.raises(ValueError, match=r"w_in \[E, D, F\], got w_in \("):
    moe.merge(block, jnp.ones(one.w_in.shape[0]))


def test_weights_off_the_simplex_are_refused_when_asked(experts):
  on = jnp.array([[0.25] * 4, [1.0, 0.0, 0.0, 0.0]])
  jax.eval_shape(lambda e: moe.merge(e, on, off_simplex="raise"), experts)
  for row, message in (
    ([0.5, 0.7, 0.0, 0.0], r"\[0.5, 0.7, 0.0, 0.0\] with sum 1.2 at row 1"),
    ([1.5, -0.5, 0.0, 0.0], r"\[1.5, -0.5, 0.0, 0.0\] with sum 1 at row 1"),
    ([np.nan, 1.0, 0.0, 0.0], "nan, 1.0.*at row 1"),
  ):
    weights = jnp.stack([on[0], jnp.array(row)])
    with pytest.raises(ValueError, match=message):
      moe.merge(experts, weights, off_simplex="raise")
  with pytest.raises(ValueError, match="'allow' or 'raise', got 'rescale'"):
    moe.merge(experts, on[0], off_simplex="rescale")


def test_traced_weights_cannot_be_checked(experts):
  merge = jax.jit(lambda w: moe.merge(experts, w, off_simplex="raise"))
  with pytest.raises(ValueError, match=r"traced float32\(4,\); check"):
    merge(jnp.full(4, 0.25))
