import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import slow_decoder

from tanbr_jax import models
from tanbr_jax.models import decoder_attention, decoder_rotary
from tanbr_jax.models.decoder_attention import LayerCache

ROTARY = models.RotaryOptions(theta=100.0)
CONFIG = models.preset("tiny", rotary=ROTARY)


@pytest.mark.parametrize("norm", [None, "head", "projection"])
def test_attention_is_the_loop(norm):
  options = models.AttentionOptions(query_key_norm=norm)
  config = models.preset("tiny", attention=options, rotary=ROTARY)
  params = decoder_attention.init_attention(jax.random.key(0), config)
  for index, name in enumerate(("query_norm", "key_norm")):
    if norm is not None:  # Scales of one would hide a scale that is not used.
      key = jax.random.key(10 + index)
      params[name] += 0.5 * jax.random.normal(key, params[name].shape)
  x = jax.random.normal(jax.random.key(1), (2, 5, config.model_dim))
  run = jax.jit(
    functools.partial(
      decoder_attention.attention,
      start=jnp.int32(0),
      cache=None,
      config=config,
    )
  )
  out, _ = run(params, x)
  wide = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)
  for i in range(2):
    expected = slow_decoder.attention(
      wide, np.asarray(x[i], np.float64), config
    )
    # Values near 1 from sums of 16 and 32 float32 products.
    np.testing.assert_allclose(out[i], expected, atol=2e-5)


def test_a_cache_is_written_at_its_place_alone():
  params = decoder_attention.init_attention(jax.random.key(0), CONFIG)
  x = jax.random.normal(jax.random.key(1), (1, 2, CONFIG.model_dim))
  shape = (1, CONFIG.num_kv_heads, 6, CONFIG.head_dim)
  before = LayerCache(jnp.full(shape, 7.0), jnp.full(shape, 8.0))
  run = jax.jit(functools.partial(decoder_attention.attention, config=CONFIG))
  _, after = run(params, x, start=jnp.int32(3), cache=before)
  written = [False, False, False, True, True, False]
  for old, new in zip(before, after, strict=True):
    is_same = np.asarray(old == new).all(axis=(0, 1, 3))
    np.testing.assert_array_equal(is_same, np.logical_not(written))


def test_rotation_depends_on_distance_alone():
  key, query = jax.random.normal(jax.random.key(2), (2, 1, 1, 1, 8))

  def score(key_position, query_position):
    def turned(x, position):
      turns = decoder_rotary.turns(jnp.full((1, 1), position), 8, ROTARY)
      return np.asarray(decoder_rotary.rotate(x, *turns), np.float64).ravel()

    return turned(key, key_position) @ turned(query, query_position)

  # Angles up to 40 radians in float32: an error of 4e-6 each.
  assert score(2, 5) == pytest.approx(score(37, 40), abs=1e-4)
  assert abs(score(2, 5) - score(2, 6)) > 1e-2
