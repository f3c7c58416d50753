"""The reward network's start."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from tanbr_jax.bandits.neural import reward_network
from tanbr_jax.regression import features

X = jnp.asarray([0.1, 0.2, 0.3, 0.4], jnp.float32)


def test_it_starts_at_exactly_zero_and_learns_from_there():
  network = reward_network.RewardNetwork(num_tasks=3)

  @jax.jit
  def start(key):
    params = reward_network.init(key, network, num_experts=4)
    gradient_of = functools.partial(
      features.mixed_gradient_features, network.apply, params, X
    )
    return (
      network.apply(params, X),
      jax.vmap(gradient_of)(jnp.eye(3)),
      network.apply(params, X, features=True),
    )

  outputs, gradient, last = start(jax.random.key(0))
  assert np.all(np.asarray(outputs) == 0)
  assert last.shape == (65,)
  # All of the first gradient is the last layer's: V copies of its features.
  np.testing.assert_allclose(
    np.sum(gradient**2, axis=1), np.sum(last**2), rtol=1e-5
  )


def test_symmetric_start_is_zero_with_gradients_in_every_layer():
  network = reward_network.RewardNetwork(num_tasks=2, hidden=(512, 512))

  @jax.jit
  def start(key):
    params = reward_network.symmetric_init(key, network, num_experts=4)
    slope = jax.grad(lambda p: network.apply(p, X)[0])
    return params, network.apply(params, X), slope(params)

  params, outputs, slope = start(jax.random.key(0))
  # The halves cancel up to the order of a sum of 512 float32 terms.
  np.testing.assert_allclose(outputs, 0.0, atol=1e-5)
  for layer in slope["params"].values():
    assert np.linalg.norm(layer["kernel"]) > 0.01
  layers = params["params"]
  first = np.asarray(layers["hidden_layers_0"]["kernel"])
  second = np.asarray(layers["hidden_layers_1"]["kernel"])
  output = np.asarray(layers["output"]["kernel"])
  np.testing.assert_array_equal(first[:, :256], first[:, 256:])
  np.testing.assert_array_equal(second[:256, :256], second[256:, 256:])
  assert not second[:256, 256:].any() and not second[256:, :256].any()
  np.testing.assert_array_equal(output[:256], -output[256:])
  # Variances 4/m, 4/m, 2/m; the fewest entries are 512: deviation 6 %.
  for half, variance in (
    (first[:, :256], 4 / 512),
    (second[:256, :256], 4 / 512),
    (output[:256], 2 / 512),
  ):
    np.testing.assert_allclose(np.var(half), variance, rtol=0.25)
