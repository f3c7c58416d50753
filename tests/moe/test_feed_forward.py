import dataclasses

import jax
import jax.numpy as jnp
import moe_cases
import numpy as np
import plain_moe
import pytest

from tanbr_jax import kernels, moe
from tanbr_jax.kernels import activate


def test_activations_equal_their_formulas():
  # Both ends are past the clamp at 7.
  h = np.linspace(-8, 8, 41, dtype=np.float32)
  gate = h[::-1].copy()

  @jax.jit
  def run(h, gate):
    return {
      name: (activate(name, h, None), activate(name, h, gate))
      for name in kernels.ACTIVATIONS
    }

  for name, (plain, gated) in run(h, gate).items():
    act = plain_moe.ACTIVATIONS[name]
    gated_by_hand = act(np.float64(gate)) * plain_moe.times(name, np.float64(h))
    # Float32 values of at most 512.
    np.testing.assert_allclose(plain, act(np.float64(h)), rtol=1e-6, atol=5e-6)
    np.testing.assert_allclose(gated, gated_by_hand, rtol=1e-6, atol=5e-6)


def test_activations_are_taken_in_float32():
  assert activate("silu", jnp.ones(2, jnp.bfloat16), None).dtype == jnp.float32


@pytest.fixture(scope="module")
def stack():
  experts = moe_cases.draw_experts("full")
  weights = jnp.array([[0.1, 0.2, 0.3, 0.4], [1.0, 0.0, -1.0, 0.5]])
  return jax.jit(moe.merge)(experts, weights)


def test_a_stack_takes_each_its_own_part_or_all_the_same(stack):
  x = jax.random.normal(jax.random.key(3), (2, 3, moe_cases.DIM))

  @jax.jit
  def run(stack, x):
    own = {name: getattr(stack, name) for name in plain_moe.STACKED}
    one = [
      dataclasses.replace(stack, **{n: a[i] for n, a in own.items()})
      for i in range(2)
    ]
    same = jnp.stack([moe.apply(block, x[0]) for block in one])
    each = jnp.stack([moe.apply(block, x[i]) for i, block in enumerate(one)])
    token = moe.apply(one[0], x[0, 0])
    return (
      (moe.apply_all(stack, x[0]), same),
      (moe.apply(stack, x), each),
      (token, same[0, 0]),
    )

  for out, expected in run(stack, x):
    np.testing.assert_allclose(out, expected, rtol=1e-5, atol=1e-5)


def test_refuses_tokens_of_another_shape_or_type(stack):
  x = jnp.ones((3, moe_cases.DIM))
  with pytest.raises(ValueError, match=r"x \(3, 5\), w_in \(2, 5, 6\)"):
    moe.apply(stack, x)
  with pytest.raises(ValueError, match=r"x \(2, 3, 4\)"):
    moe.apply(stack, jnp.ones((2, 3, 4)))
  with pytest.raises(ValueError, match=r"x \(3, 4\)"):
    moe.apply_all(stack, jnp.ones((3, 4)))
  with pytest.raises(ValueError, match="x float16, w_in float32"):
    moe.apply_all(stack, x.astype(jnp.float16))
  with pytest.raises(ValueError, match="activation='swoosh'"):
    moe.apply_all(dataclasses.replace(stack, activation="swoosh"), x)
