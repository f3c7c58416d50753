"""Weights of local merges; their forwards are in `test_forwards.py`."""

import jax
import jax.numpy as jnp
import moe_cases
import numpy as np
import pytest
from moe_cases import DIM, NUM_EXPERTS

from tanbr_jax import moe


def _probabilities(batch, length):
  rng = np.random.default_rng(9)
  return rng.dirichlet(np.ones(NUM_EXPERTS), (batch, length)).astype(np.float32)


def test_example_weights_leave_padding_out():
  probabilities = _probabilities(3, 5)
  lengths = [5, 2, 0]
  is_token = np.arange(5)[None] < np.array(lengths)[:, None]
  weights = moe.example_weights(jnp.array(probabilities), jnp.array(is_token))
  for b in (0, 1):
    np.testing.assert_allclose(
      weights[b], probabilities[b, : lengths[b]].mean(0), rtol=1e-6
    )
  np.testing.assert_array_equal(weights[2], 0.0)
  np.testing.assert_allclose(
    moe.example_weights(jnp.array(probabilities)),
    probabilities.mean(1),
    rtol=1e-6,
  )


@pytest.mark.parametrize(("length", "segment"), [(7, 3), (6, 3), (2, 5)])
def test_a_segment_has_the_mean_of_the_one_before(length, segment):
  probabilities = _probabilities(2, length)
  first = np.array([0.4, 0.3, 0.2, 0.1], np.float32)
  weights = moe.segment_weights(
    jnp.array(probabilities),
    segment_length=segment,
    first_weights=jnp.array(first),
  )
  for b in range(2):
    expected = [first]
    for start in range(segment, length, segment):
      expected.append(probabilities[b, start - segment : start].mean(0))
    np.testing.assert_allclose(weights[b], expected, rtol=1e-6)
  uniform = moe.segment_weights(
    jnp.array(probabilities), segment_length=segment
  )
  np.testing.assert_array_equal(uniform[:, 0], 1 / NUM_EXPERTS)


def test_no_output_of_segments_depends_on_later_tokens():
  experts = moe_cases.draw_experts("full")
  router = jax.random.normal(jax.random.key(1), (DIM, NUM_EXPERTS))

  @jax.jit
  def run(x, shift):
    x = x + shift
    probabilities = jax.nn.softmax(x @ router)
    weights = moe.segment_weights(probabilities, segment_length=2)
    return moe.merged_per_segment(experts, x, weights, segment_length=2)

  x = jax.random.normal(jax.random.key(2), (1, 7, DIM))
  out = np.array(run(x, np.zeros_like(x)))
  for position in range(7):
    shift = np.zeros_like(x)
    shift[0, position] = 1
    change = np.abs(run(x, shift) - out)[0].max(-1)
    # Earlier ones not at all, itself and the next segment for certain.
    np.testing.assert_array_equal(change[:position], 0.0)
    following = 2 * (position // 2) + 2
    assert (change[[position, *range(following, 7)][:3]] > 1e-4).all()


def test_no_example_has_no_output_and_gradients_of_zero():
  experts = moe_cases.draw_experts("full")
  routing = moe.top_k(jnp.zeros((0, NUM_EXPERTS)), 2)

  def total(experts):
    out = moe.merged_of_selected(experts, jnp.zeros((0, 7, DIM)), routing)
    assert out.shape == (0, 7, DIM)
    return jnp.sum(out)

  for leaf in jax.tree.leaves(jax.grad(total)(experts)):
    np.testing.assert_array_equal(leaf, np.zeros(leaf.shape))
  with pytest.raises(ValueError, match=r"x \(0, 6\)|got x \(1, 6\)"):
    moe.merged_of_selected(experts, jnp.zeros((0, 6)), routing)


def test_refuses_shapes_that_disagree():
  experts, x = moe_cases.draw_experts("plain"), jnp.ones((3, 7, DIM))
  probabilities = jnp.ones((3, 7, NUM_EXPERTS))
  with pytest.raises(ValueError, match=r"\(2, 4\), x \(3, 7, 5\)"):
    moe.merged_per_example(experts, x, jnp.ones((2, 4)))
  with pytest.raises(ValueError, match=r"= \(3, 4, 4\), got .*\(3, 3, 4\)"):
    moe.merged_per_segment(experts, x, jnp.ones((3, 3, 4)), segment_length=2)
  with pytest.raises(ValueError, match="segment_length=0"):
    moe.segment_weights(probabilities, segment_length=0)
  with pytest.raises(ValueError, match=r"first_weights \(3,\)"):
    moe.segment_weights(
      probabilities, segment_length=2, first_weights=jnp.ones(3)
    )
  with pytest.raises(ValueError, match=r"\[B, S, E\], got \(3, 4\)"):
    moe.example_weights(jnp.ones((3, 4)))
  with pytest.raises(ValueError, match=r"is_token \(3, 6\)"):
    moe.example_weights(probabilities, jnp.ones((3, 6), bool))
  with pytest.raises(ValueError, match="N=3 tokens"):
    moe.merged_of_selected(experts, x, moe.top_k(jnp.ones((4, 4)), 1))
