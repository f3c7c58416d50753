"""Gradient features against finite differences and a loop of jax.grad."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from tanbr_jax.bandits.neural import reward_network
from tanbr_jax.regression import features

NUM_TASKS, NUM_EXPERTS, NUM_CANDIDATES = 3, 4, 5
NETWORK = reward_network.RewardNetwork(num_tasks=NUM_TASKS, hidden=(6, 4))


@pytest.fixture(scope="module")
def params():
  start = jax.jit(
    lambda key: reward_network.init(key, NETWORK, num_experts=NUM_EXPERTS)
  )(jax.random.key(0))
  flat, unravel = ravel_pytree(start)
  # Away from the zero output layer, where half of the gradient vanishes.
  return unravel(flat + 0.3 * jax.random.normal(jax.random.key(1), flat.shape))


@pytest.fixture(scope="module")
def candidates():
  weights = np.random.default_rng(0).dirichlet(
    np.ones(NUM_EXPERTS), NUM_CANDIDATES
  )
  return jnp.asarray(weights, jnp.float32)


@pytest.fixture(scope="module")
def gradients(params, candidates):
  """Those of every candidate and task, [N, V, P]."""

  def one(x, task):
    return features.mixed_gradient_features(NETWORK.apply, params, x, task)

  rows = jax.jit(jax.vmap(jax.vmap(one, (None, 0)), (0, None)))
  return np.asarray(rows(candidates, jnp.eye(NUM_TASKS)))


def test_gradients_match_a_loop_of_grad(params, candidates, gradients):
  slope = jax.jit(jax.grad(lambda p, x, v: NETWORK.apply(p, x)[v]))
  for n, x in enumerate(candidates):
    for v in range(NUM_TASKS):
      grad = slope(params, x, v)
      np.testing.assert_allclose(
        gradients[n, v], ravel_pytree(grad)[0], rtol=1e-5, atol=1e-7
      )


def _forward(params, x):
  """The network in float64 NumPy."""
  layers = params["params"]
  for name in ("hidden_layers_0", "hidden_layers_1"):
    x = np.maximum(x @ layers[name]["kernel"] + layers[name]["bias"], 0)
  last = np.append(x, 1.0)
  return last[:-1] @ layers["output"]["kernel"] + layers["output"]["bias"], last


def test_gradients_match_finite_differences(params, candidates, gradients):
  flat, unravel = ravel_pytree(params)
  flat = np.asarray(flat, np.float64)
  x = np.asarray(candidates[0], np.float64)

  def outputs(vector):
    # Rebuilt by hand: `unravel` would round to float32.
    sizes = [(leaf.shape, leaf.size) for leaf in jax.tree.leaves(params)]
    leaves, at = [], 0
    for shape, size in sizes:
      leaves.append(vector[at : at + size].reshape(shape))
      at += size
    tree = jax.tree.unflatten(jax.tree.structure(params), leaves)
    return _forward(tree, x)[0]

  step = 1e-6
  for index in range(flat.size):
    move = np.zeros_like(flat)
    move[index] = step
    slope = (outputs(flat + move) - outputs(flat - move)) / (2 * step)
    # float64 differences are good to 1e-9; the gradient is float32.
    np.testing.assert_allclose(gradients[0][:, index], slope, atol=1e-5)


def test_mixed_gradient_is_the_mix_of_gradients(params, candidates, gradients):
  task_mix = jnp.asarray([0.2, 0.5, 0.3], jnp.float32)
  mix_of = jax.jit(
    jax.vmap(
      lambda x: features.mixed_gradient_features(
        NETWORK.apply, params, x, task_mix
      )
    )
  )
  mixed = mix_of(candidates)
  expected = np.einsum("v,nvp->np", np.asarray(task_mix), gradients)
  np.testing.assert_allclose(mixed, expected, rtol=1e-5, atol=1e-6)


def test_last_layer_features_are_the_last_layers_gradient(params, candidates):
  def of_task(output, x, v):
    layers = params["params"] | {"output": output}
    return NETWORK.apply({"params": layers}, x)[v]

  slope = jax.jit(jax.grad(of_task))
  last_of = jax.jit(lambda x: NETWORK.apply(params, x, features=True))
  for x in candidates:
    last = last_of(x)
    for v in range(NUM_TASKS):
      grad = slope(params["params"]["output"], x, v)
      np.testing.assert_allclose(last[:-1], grad["kernel"][:, v], rtol=1e-6)
      np.testing.assert_allclose(last[-1], grad["bias"][v], rtol=1e-6)
    numpy_last = _forward(jax.tree.map(np.asarray, params), np.asarray(x))[1]
    np.testing.assert_allclose(last, numpy_last, rtol=1e-5, atol=1e-7)
