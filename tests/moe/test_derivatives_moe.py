"""Derivatives of the forwards, of both orders and in both modes."""

import dataclasses

import derivatives
import jax
import jax.numpy as jnp
import moe_cases
import numpy as np

from tanbr_jax import models, moe


def _blocks(experts, x):
  """[E, N, D], every expert's output for every token."""
  hidden = jnp.square(jax.nn.relu(jnp.einsum("nd,edf->enf", x, experts.w_in)))
  return jnp.einsum("enf,efd->end", hidden, experts.w_out)


def _total(*outputs):
  return sum(jnp.sum(jnp.sin(output)) for output in outputs)


def test_routed_soft_and_merged():
  case = moe_cases.draw("plain")
  x = case.x.reshape(-1, moe_cases.DIM)
  ids = case.ids.copy()
  ids[2, 1] = moe.NO_EXPERT
  shares = case.shares
  chosen = ids[:, :, None] == np.arange(moe_cases.NUM_EXPERTS)

  def function(point):
    experts, x, gates, token_weights, merge_weights = point
    return _total(
      moe.routed(experts, x, moe_cases.routing(ids, gates)),
      moe.soft(experts, x, token_weights),
      moe.merged(experts, x, merge_weights),
    )

  def reference(point):
    experts, x, gates, token_weights, merge_weights = point
    outputs = _blocks(experts, x)
    merged = jax.tree.map(
      lambda leaf: jnp.tensordot(merge_weights, leaf, 1)[None], experts
    )
    return _total(
      jnp.einsum("nk,nke,end->nd", gates, jnp.float32(chosen), outputs),
      jnp.einsum("ne,end->nd", token_weights, outputs),
      _blocks(merged, x)[0],
    )

  derivatives.check(
    function,
    reference,
    (
      case.experts,
      x,
      shares.gates,
      shares.token_weights,
      shares.merge_weights,
    ),
    # Each mode within the other is tested for the kernels alone.
    names=("slope, forward", "reverse over reverse"),
  )


def test_hessian_of_a_models_loss_in_the_merge_weights():
  config = models.ByteLMConfig(
    num_layers=1,
    model_dim=8,
    num_heads=1,
    head_dim=8,
    expert_dim=8,
    num_experts=3,
    context=6,
    dtype="float32",
  )
  model = models.ByteLM(config)
  dense = models.ByteLM(dataclasses.replace(config, num_experts=None))
  params = jax.jit(model.init)(jax.random.key(0))
  windows = jax.random.randint(jax.random.key(1), (2, 7), 0, 256)

  def loss(weights):
    return jnp.mean(
      models.score(*models.merge(model, params, weights), windows).loss
    )

  def reference(weights):
    layers = dict(params["params"])
    stack = layers["layer_0"]["experts"]["stack"]
    w_in, w_out = (
      jnp.tensordot(weights, w, 1) for w in (stack.w_in, stack.w_out)
    )
    block = moe.FeedForward(w_in, w_out, activation=stack.activation)
    layers["layer_0"] = {**layers["layer_0"], "experts": {"stack": block}}
    return jnp.mean(models.score(dense, {"params": layers}, windows).loss)

  weights = jnp.array([0.2, 0.0, 0.8])
  found, expected = jax.jit(
    lambda w: (jax.hessian(loss)(w), jax.hessian(reference)(w))
  )(weights)
  # Float32 sums in another order.
  assert abs(expected).max() > 0.01
  np.testing.assert_allclose(found, expected, atol=1e-4 * abs(expected).max())
