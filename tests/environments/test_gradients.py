"""Gradients of synthetic environments: exact, noisy, rare."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from tanbr_jax.environments import gradients, mixes, synthetic
from tanbr_jax.environments.landscapes import families

V, E, T = 3, 4, 2000
MIX = jnp.array([0.7, 0.3, 0.0])
X = np.array([0.1, 0.2, 0.3, 0.4])


def _environment(family="quadratic", **options):
  return synthetic.synthetic(
    family,
    num_experts=E,
    num_tasks=V,
    task_mix=mixes.fixed(MIX),
    **options,
  )


@jax.jit
def _play(environment, key):
  init_key, scan_key = jax.random.split(key)
  first = environment.init(init_key)

  def body(state, step_key):
    feedback, _, state = environment.step(step_key, state, jnp.float32(X))
    return state, feedback

  keys = jax.random.split(scan_key, T)
  return first.landscape, jax.lax.scan(body, first, keys)[1]


def test_without_noise_it_is_the_derivative_of_the_slots_mean_reward():
  """The quadratic's by hand: -2 (x - sum_v s_v c_v), s_v the requests' share.

  The mean over experts of x and of every c_v is 1 / E, hence so much is taken
  off of either and the difference has none.
  """
  for options in ({}, {"requests": 5}):
    environment = _environment(gradient_noise=0.0, **options)
    centres, feedback = _play(environment, jax.random.key(0))
    shares = np.broadcast_to(np.float64(MIX), (T, V))
    if options:
      shares = np.float64(feedback.task_count) / 5
    expected = -2 * (X - shares @ np.float64(centres))
    # Numbers near 1 in float32.
    np.testing.assert_allclose(feedback.gradient, expected, atol=1e-6)
    assert (feedback.gradient_count == options.get("requests", 1)).all()
    assert feedback.gradient_count.dtype == jnp.int32
    assert feedback.gradient.dtype == jnp.float32
    assert feedback.usage is None


def test_noise_has_the_stated_size():
  """Its covariance is noise^2 / n times the projection I - 1 1' / E."""
  key = jax.random.key(1)
  noisy = _environment(gradient_noise=0.6, requests=4)
  centres, feedback = _play(noisy, key)
  shares = np.float64(feedback.task_count) / 4
  noise = feedback.gradient + 2 * (X - shares @ np.float64(centres))
  expected = 0.6**2 / 4 * (np.eye(E) - 1 / E)
  # Entries of size .09 from 2,000 slots: standard error at most .09 * .032.
  np.testing.assert_allclose(noise.T @ noise / T, expected, atol=0.012)
  # Mean of 2,000 draws of deviation .26: .006.
  np.testing.assert_allclose(noise.mean(0), 0.0, atol=0.025)


def test_rewards_and_stream_are_those_without_gradients():
  key = jax.random.key(2)
  _, plain = _play(_environment(requests=4), key)
  _, with_gradient = _play(
    _environment(requests=4, gradient_noise=0.6, gradient_every=3), key
  )
  assert plain.gradient is None and plain.gradient_count is None
  for field in ("task_reward", "task_count"):
    np.testing.assert_array_equal(
      getattr(plain, field), getattr(with_gradient, field)
    )
  given = np.arange(T) % 3 == 0
  np.testing.assert_array_equal(
    with_gradient.gradient_count, np.where(given, 4, 0)
  )
  gradient = np.asarray(with_gradient.gradient)
  assert (gradient[~given] == 0).all() and (gradient[given] != 0).all()


def test_families_have_the_slope_of_their_rewards():
  """Central differences in float32, along the simplex.

  With steps d = .004 truncation is d^2 / 6 of the third derivative, which is
  1.5 % of the slope for a sine of angular frequency 75, and rounding 1e-7 / d.
  """
  exact = gradients.noisy_gradients(0.0, every=1, requests=None)
  key, point = jax.random.key(3), jnp.float32(X)[None]
  offsets = 0.004 * (jnp.eye(E) - 1 / E)

  @jax.jit
  def both(key, point):
    found = {}
    for name in ("cosine", "himmelblau", "plateau", "saturating"):
      family = families.FAMILIES[name](num_experts=E, num_tasks=V)
      rewards = Partial(family.reward, family.init(key))
      show = Partial(exact.show, key, jnp.int32(0), rewards, MIX)
      ends = jax.vmap(rewards)(
        jnp.concatenate([point + offsets, point - offsets])
      )
      up, down = jnp.split(ends @ MIX, 2)
      at_vertex = show(jnp.eye(E)[0]).gradient
      found[name] = show(point[0]).gradient, (up - down) / 0.008, at_vertex
    return found

  for name, (gradient, slope, at_vertex) in both(key, point).items():
    np.testing.assert_allclose(
      gradient, slope, atol=0.02 * np.abs(slope).max() + 1e-3, err_msg=name
    )
    assert np.isfinite(at_vertex).all(), name


@pytest.mark.parametrize(
  ("options", "message"),
  [
    ({"gradient_noise": -0.1}, "gradient_noise=-0.1"),
    ({"gradient_noise": float("nan")}, "gradient_noise=nan"),
    ({"gradient_every": 0}, "gradient_every=0"),
  ],
)
def test_bad_arguments_are_one_line_errors(options, message):
  with pytest.raises(ValueError, match=message) as error:
    _environment(**options)
  assert "\n" not in str(error.value)
