"""What no recorded checkpoint reaches: sequences past the original context."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tanbr_jax.models import decoder_rotary as rotary

SHORT, LONG = (1.0, 1.5, 2.0), (1.0, 4.0, 9.0)


@pytest.mark.parametrize(
  ("last", "divisors", "amplitude"), [(7, SHORT, 1.2), (8, LONG, 1.6)]
)
def test_long_divisors_begin_past_the_context(last, divisors, amplitude):
  options = rotary.RotaryOptions(
    theta=100.0, scaling=rotary.LongScaling(SHORT, LONG, 8, 1.2, 1.6)
  )
  positions = jnp.array([[0, last]], jnp.int32)
  cos, sin = jax.jit(lambda p: rotary.turns(p, 6, options))(positions)
  angles = [last * 100 ** (-i / 3) / divisors[i] for i in range(3)]
  # Angles of at most 8 radians in float32.
  np.testing.assert_allclose(cos[0, 1], amplitude * np.cos(angles), atol=2e-6)
  np.testing.assert_allclose(sin[0, 1], amplitude * np.sin(angles), atol=2e-6)
  np.testing.assert_allclose(cos[0, 0], amplitude, rtol=1e-6)


def test_the_rest_of_a_head_is_not_turned():
  options = rotary.RotaryOptions(dim=4)
  x = jax.random.normal(jax.random.key(0), (1, 3, 2, 6))
  turns = rotary.turns(jnp.arange(3, dtype=jnp.int32)[None], 6, options)
  for is_interleaved in (False, True):
    out = rotary.rotate(x, *turns, is_interleaved=is_interleaved)
    np.testing.assert_array_equal(out[..., 4:], x[..., 4:])
    # Turning keeps the length of each pair.
    pairs = ((0, 1), (2, 3)) if is_interleaved else ((0, 2), (1, 3))
    for i, j in pairs:
      length = x[..., i] ** 2 + x[..., j] ** 2
      found = out[..., i] ** 2 + out[..., j] ** 2
      np.testing.assert_allclose(found, length, rtol=1e-5)
    assert np.abs(out - x)[0, 1, :, :4].min() > 1e-6
