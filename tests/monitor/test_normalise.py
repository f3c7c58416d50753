"""What all monitors share."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tanbr_jax import monitor
from tanbr_jax.monitor import base

MONITORS = [
  functools.partial(monitor.exponential_moving_average, decay=0.8),
  functools.partial(monitor.count_min_sketch, width=16, depth=2, window=3),
]


@pytest.mark.parametrize("make", MONITORS)
def test_uniform_until_the_first_request(make):
  m = make(num_tasks=5)
  empty = jnp.zeros((5,), jnp.int32)
  for state in (m.init(), m.update(m.init(), empty)):
    np.testing.assert_array_equal(
      m.estimate(state), np.full(5, np.float32(0.2))
    )


@pytest.mark.parametrize("make", MONITORS)
def test_an_empty_slot_changes_nothing(make):
  m = make(num_tasks=3)
  state = m.init()
  for count in ([1, 2, 3], [4, 0, 0], [0, 0, 1], [2, 2, 2]):
    state = m.update(state, jnp.asarray(count, jnp.int32))
  after = m.update(state, jnp.zeros((3,), jnp.int32))
  for old, new in zip(
    jax.tree.leaves(state), jax.tree.leaves(after), strict=True
  ):
    np.testing.assert_array_equal(old, new)


@pytest.mark.parametrize("make", MONITORS)
def test_scan_and_vmap_agree_with_a_plain_loop(make):
  counts = np.random.default_rng(0).integers(0, 4, (2, 20, 4)).astype(np.int32)
  m = make(num_tasks=4)

  @jax.jit
  def run(m, counts):
    def step(state, count):
      state = m.update(state, count)
      return state, m.estimate(state)

    return jax.lax.scan(step, m.init(), counts)[1]

  batched = jax.vmap(run, in_axes=(None, 0))(m, jnp.asarray(counts))
  for seed in range(2):
    state = m.init()
    for t in range(20):
      state = m.update(state, jnp.asarray(counts[seed, t]))
      mix = np.asarray(m.estimate(state))
      # Contraction of products and sums may differ in the last bit.
      np.testing.assert_allclose(batched[seed, t], mix, rtol=1e-6)
      assert np.all(mix >= 0)
      np.testing.assert_allclose(mix.sum(), 1.0, rtol=1e-6)


def test_normalise():
  mix = base.normalise(jnp.asarray([1, 0, 3], jnp.int32))
  np.testing.assert_array_equal(mix, np.asarray([0.25, 0, 0.75], np.float32))


@pytest.mark.parametrize("make", MONITORS)
def test_no_tasks_is_an_error(make):
  with pytest.raises(ValueError, match="num_tasks=0"):
    make(num_tasks=0)
