"""The decoder as one loop: what the unrolled one computes."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from tanbr_jax import models

MODEL = models.Decoder(models.preset("tiny", expert_dim=8, shared_dim=4))
IDS = jnp.array([[1, 5, 9, 13, 60], [7, 7, 2, 0, 0]])
MASK = jnp.array([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])
WEIGHTS = jnp.array([[0.1, 0.2, 0.3, 0.4], [0.7, 0.0, 0.3, 0.0]])


@pytest.fixture(scope="module")
def params():
  return jax.jit(MODEL.init)(jax.random.key(0))


def see(scale, layer, output):
  return scale * jnp.mean(layer.router_logits, axis=0)


def test_logits_and_what_is_seen_are_those_of_the_unrolled_one(params):
  observe = Partial(see, jnp.array([1.0, 3.0]))

  def run(model):
    return jax.jit(
      lambda p: model.apply(p, IDS, attention_mask=MASK, observe=observe)
    )(params)

  # The same operations, compiled apart: float32 rounding of logits of size 1.
  jax.tree.map(
    lambda one, other: np.testing.assert_allclose(one, other, atol=2e-5),
    run(models.scanned(MODEL)),
    run(MODEL),
  )


def test_merges_and_their_gradients_are_those_of_the_unrolled_one(params):
  def loss(model, weights, params):
    dense, merged = models.merge(model, params, weights)
    assert type(dense) is type(model) and dense.config.num_experts is None
    return jnp.mean(jnp.square(dense.apply(merged, IDS)))

  def run(model):
    return jax.jit(
      jax.value_and_grad(lambda *args: loss(model, *args), argnums=(0, 1))
    )(WEIGHTS, params)

  (value, grads), (expected, wanted) = run(models.scanned(MODEL)), run(MODEL)
  np.testing.assert_allclose(value, expected, rtol=1e-5)
  # Sums of at most 10 x 64 products in float32.
  jax.tree.map(
    lambda one, other: np.testing.assert_allclose(
      one, other, atol=1e-5 * max(1e-3, float(jnp.abs(other).max()))
    ),
    grads,
    wanted,
  )


def test_dense_layers_at_first_are_a_loop_of_their_own():
  config = dataclasses.replace(
    MODEL.config, num_layers=3, dense_layers=(0, 1), dense_dim=8
  )
  model = models.Decoder(config)
  params = jax.jit(model.init)(jax.random.key(1))

  def loss(model, weights):
    dense, merged = models.merge(model, params, weights)
    return jnp.mean(jnp.square(dense.apply(merged, IDS, attention_mask=MASK)))

  def run(model):
    observe = Partial(see, jnp.array([2.0]))
    return jax.jit(
      lambda weights: (
        model.apply(params, IDS, attention_mask=MASK, observe=observe),
        jax.value_and_grad(lambda x: loss(model, x))(weights),
      )
    )(WEIGHTS[0])

  # Float32 rounding, as above; one layer has experts.
  found, expected = run(models.scanned(model)), run(model)
  assert found[0][1].shape == (1, 4)
  jax.tree.map(
    lambda one, other: np.testing.assert_allclose(one, other, atol=2e-5),
    found,
    expected,
  )


def test_a_model_of_dense_layers_alone_is_one_loop():
  config = dataclasses.replace(MODEL.config, dense_layers=(0, 1), dense_dim=8)
  model = models.Decoder(config)
  params = jax.jit(model.init)(jax.random.key(2))

  def run(model):
    return jax.jit(lambda p: model.apply(p, IDS, attention_mask=MASK))(params)

  # Float32 rounding, as above.
  np.testing.assert_allclose(run(models.scanned(model)), run(model), atol=2e-5)


def test_layers_that_differ_are_refused():
  config = dataclasses.replace(MODEL.config, dense_layers=(1,), dense_dim=8)
  with pytest.raises(ValueError, match=r"must be alike .*dense_layers=\(1,\)"):
    models.scanned(models.Decoder(config))
